//! Marks picture files with machine-readable metadata on how the picture was made, as Article 50(2) of Regulation (EU)
//! 2024/1689 requires. The mark is the property `Iptc4xmpExt:DigitalSourceType` of the IPTC Photo Metadata Standard in
//! an XMP packet, with a value of <https://cv.iptc.org/newscodes/digitalsourcetype/>. Part 3 of Adobe's XMP
//! specification, and RFC 9649 for WebP, define where the packet is stored. The pixels are not changed. A file with a
//! C2PA manifest is not marked: the manifest states the origin, and its hash covers the file.

use bytes::Bytes;
use img_parts::jpeg::{Jpeg, JpegSegment, markers};
use img_parts::png::{Png, PngChunk};
use img_parts::riff::{RiffChunk, RiffContent};
use img_parts::webp::{CHUNK_VP8X, CHUNK_XMP, WebP};
use img_parts::{DynImage, ImageICC};

/// How a picture was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A trained model.
    Model,
    /// A trained model, with lettering set over its picture.
    LetteredModel,
    /// A program without a trained model.
    Algorithm,
}

/// Why a file could not be marked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what they are")]
pub enum MarkError {
    #[error("the file is damaged: {0}")]
    Damaged(#[from] img_parts::Error),
    #[error("the file has no known format")]
    UnknownFormat,
    /// The file has XMP that cannot be extended: compressed, not RDF, or too long.
    #[error("the file's XMP cannot be extended")]
    OtherXmp,
}

/// The start of a PNG `iTXt` chunk that contains XMP: the keyword, no compression, no language, no translated keyword.
const PNG_XMP: &[u8] = b"XML:com.adobe.xmp\0\0\0\0\0";

/// The start of a JPEG `APP1` segment that contains XMP.
const JPEG_XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// In bytes: the 16-bit length of a segment includes its own two bytes.
const JPEG_SEGMENT: usize = 65_533;

/// In the chunk `VP8X`.
const WEBP_HAS_XMP: u8 = 0b0000_0100;

impl Origin {
    const ALL: [Self; 3] = [Self::Model, Self::LetteredModel, Self::Algorithm];

    const fn source_type(self) -> &'static str {
        match self {
            Self::Model => "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
            Self::LetteredModel => {
                "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
            }
            Self::Algorithm => "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia",
        }
    }

    /// The origin that a file is marked with; `None` if it has no mark that is defined here.
    pub fn of(file: &Bytes) -> Option<Self> {
        let xmp = xmp(&DynImage::from_bytes(file.clone()).ok()??)?;
        Self::ALL.into_iter().find(|origin| contains(&xmp, &format!("{}\"", origin.source_type())))
    }

    /// The origin after lettering is set over the picture.
    pub fn with_lettering(self) -> Self {
        match self {
            Self::Model | Self::LetteredModel => Self::LetteredModel,
            Self::Algorithm => Self::Algorithm,
        }
    }

    fn description(self) -> String {
        format!(
            "<rdf:Description rdf:about=\"\" xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\" \
             Iptc4xmpExt:DigitalSourceType=\"{}\"/>",
            self.source_type()
        )
    }

    fn packet(self) -> Vec<u8> {
        format!(
            "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
             <x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\
             {}</rdf:RDF></x:xmpmeta><?xpacket end=\"r\"?>",
            self.description()
        )
        .into_bytes()
    }

    fn added_to(self, xmp: &[u8]) -> Result<Vec<u8>, MarkError> {
        const END: &[u8] = b"</rdf:RDF>";
        let end = memchr::memmem::rfind(xmp, END).ok_or(MarkError::OtherXmp)?;
        Ok([&xmp[..end], self.description().as_bytes(), &xmp[end..]].concat())
    }
}

/// Marks a file with its picture's origin. Returns a file that already states one, by XMP or C2PA, unchanged.
pub fn mark(file: Bytes, origin: Origin) -> Result<Bytes, MarkError> {
    let mut image = DynImage::from_bytes(file.clone())?.ok_or(MarkError::UnknownFormat)?;
    let before = xmp(&image);
    if has_manifest(&image) || before.as_ref().is_some_and(|xmp| contains(xmp, "DigitalSourceType")) {
        return Ok(file);
    }
    let after = match before {
        Some(xmp) => origin.added_to(&xmp)?,
        None => origin.packet(),
    };
    match &mut image {
        DynImage::Png(png) => set_in_png(png, &after),
        DynImage::Jpeg(_) if JPEG_XMP.len() + after.len() > JPEG_SEGMENT => return Err(MarkError::OtherXmp),
        DynImage::Jpeg(jpeg) => set_in_jpeg(jpeg, &after),
        DynImage::WebP(webp) => set_in_webp(webp, after),
    }
    Ok(image.encoder().bytes())
}

fn contains(text: &[u8], part: &str) -> bool {
    memchr::memmem::find(text, part.as_bytes()).is_some()
}

/// See "Embedding manifests into various file formats", <https://spec.c2pa.org/>.
fn has_manifest(image: &DynImage) -> bool {
    match image {
        DynImage::Png(png) => png.chunk_by_type(*b"caBX").is_some(),
        DynImage::Jpeg(jpeg) => jpeg.segment_by_marker(markers::APP11).is_some(),
        DynImage::WebP(webp) => webp.has_chunk(*b"C2PA"),
    }
}

fn is_png_xmp(chunk: &PngChunk) -> bool {
    chunk.kind() == *b"iTXt" && chunk.contents().starts_with(b"XML:com.adobe.xmp\0")
}

fn is_jpeg_xmp(segment: &JpegSegment) -> bool {
    segment.marker() == markers::APP1 && segment.contents().starts_with(JPEG_XMP)
}

fn xmp(image: &DynImage) -> Option<Bytes> {
    match image {
        DynImage::Png(png) => {
            let contents = png.chunks().iter().find(|chunk| is_png_xmp(chunk))?.contents();
            // Compressed XMP is returned with its header, so adding to it fails.
            let header = if contents.starts_with(PNG_XMP) { PNG_XMP.len() } else { 0 };
            Some(contents.slice(header..))
        }
        DynImage::Jpeg(jpeg) => {
            let segment = jpeg.segments().iter().find(|segment| is_jpeg_xmp(segment))?;
            Some(segment.contents().slice(JPEG_XMP.len()..))
        }
        DynImage::WebP(webp) => webp.chunk_by_id(CHUNK_XMP)?.content().data().cloned(),
    }
}

fn set_in_png(png: &mut Png, xmp: &[u8]) {
    let chunk = PngChunk::new(*b"iTXt", [PNG_XMP, xmp].concat().into());
    let chunks = png.chunks_mut();
    chunks.retain(|chunk| !is_png_xmp(chunk));
    // The header must come first.
    let after_header = chunks.len().min(1);
    chunks.insert(after_header, chunk);
}

fn set_in_jpeg(jpeg: &mut Jpeg, xmp: &[u8]) {
    let segment = JpegSegment::new_with_contents(markers::APP1, [JPEG_XMP, xmp].concat().into());
    let segments = jpeg.segments_mut();
    segments.retain(|segment| !is_jpeg_xmp(segment));
    // JFIF and Exif segments must come first.
    let is_other = |segment: &JpegSegment| !matches!(segment.marker(), markers::APP0 | markers::APP1);
    let place = segments.iter().position(is_other).unwrap_or(segments.len());
    segments.insert(place, segment);
}

fn set_in_webp(webp: &mut WebP, xmp: Vec<u8>) {
    webp.remove_chunks_by_id(CHUNK_XMP);
    // The specification wants XMP in the last chunk.
    webp.chunks_mut().push(RiffChunk::new(CHUNK_XMP, RiffContent::Data(xmp.into())));
    match webp.chunks_mut().iter_mut().find(|chunk| chunk.id() == CHUNK_VP8X).map(RiffChunk::content_mut) {
        Some(RiffContent::Data(header)) => {
            let mut flags = header.to_vec();
            if let Some(first) = flags.first_mut() {
                *first |= WEBP_HAS_XMP;
            }
            *header = flags.into();
        }
        // An extended file has a first chunk, which the crate adds with a color profile: set the file's own, or none.
        _ => {
            let profile = webp.icc_profile();
            webp.set_icc_profile(profile);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of one pixel that claims to be 832 pixels wide and 1216 high.
    fn png(more: &[([u8; 4], &'static [u8])]) -> Bytes {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        let header: &[u8] = &[0, 0, 3, 64, 0, 0, 4, 192, 8, 2, 0, 0, 0];
        let first = std::iter::once((*b"IHDR", header));
        for (kind, contents) in first.chain(more.iter().copied()).chain([(*b"IDAT", &b"data"[..]), (*b"IEND", b"")]) {
            file.extend(PngChunk::new(kind, Bytes::copy_from_slice(contents)).encoder().bytes());
        }
        file.into()
    }

    fn jpeg(more: &[(u8, &[u8])]) -> Bytes {
        let mut file = vec![0xff, markers::SOI];
        let frame: &[u8] = b"\x08\x04\xc0\x03\x40\x01\x01\x11\0";
        let scan = [(markers::APP0, &b"JFIF\0"[..])];
        for (marker, contents) in scan.iter().chain(more).chain(&[(markers::SOF0, frame), (markers::SOS, b"\x01")]) {
            let length = u16::try_from(contents.len() + 2).expect("it is short").to_be_bytes();
            file.extend([&[0xff, *marker], &length[..], contents].concat());
        }
        file.extend(b"entropy\xff\xd9");
        file.into()
    }

    /// One pixel, losslessly.
    const WEBP: &[u8] = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0";

    fn text(file: &Bytes) -> String {
        String::from_utf8_lossy(file).into_owned()
    }

    #[test]
    fn every_format_is_marked_once_and_keeps_its_picture() {
        let webp = Bytes::from_static(WEBP);
        for (file, picture) in [(png(&[]), &b"IDATdata"[..]), (jpeg(&[]), b"entropy\xff\xd9"), (webp, &WEBP[12..])] {
            assert_eq!(Origin::of(&file), None);
            for origin in Origin::ALL {
                let marked = mark(file.clone(), origin).expect("it is marked");
                assert_eq!(Origin::of(&marked), Some(origin));
                assert!(memchr::memmem::find(&marked, picture).is_some(), "{}", text(&marked));
                assert_eq!(text(&marked).matches(origin.source_type()).count(), 1);
                // A second mark changes nothing.
                assert_eq!(mark(marked.clone(), Origin::Algorithm).expect("it is marked"), marked);
                let size =
                    |file: &Bytes| DynImage::from_bytes(file.clone()).expect("whole").expect("known").dimensions();
                assert_eq!(size(&marked), size(&file));
            }
        }
    }

    #[test]
    fn lettering_is_part_of_the_origin_of_what_a_model_painted() {
        assert_eq!(Origin::Model.with_lettering(), Origin::LetteredModel);
        assert_eq!(Origin::Algorithm.with_lettering(), Origin::Algorithm);
    }

    #[test]
    fn a_webp_file_announces_its_xmp() {
        let marked = mark(WEBP.into(), Origin::Model).expect("it is marked");
        assert_eq!((&marked[12..16], marked[20]), (&b"VP8X"[..], WEBP_HAS_XMP | 0b0001_0000), "XMP and transparency");
        // An extended file keeps its other flags.
        let mut extended = WebP::from_bytes(marked).expect("it is whole");
        extended.remove_chunks_by_id(CHUNK_XMP);
        for chunk in extended.chunks_mut() {
            if let (CHUNK_VP8X, RiffContent::Data(header)) = (chunk.id(), chunk.content_mut()) {
                *header = [&[0b0001_0000], &header[1..]].concat().into();
            }
        }
        let marked = mark(extended.encoder().bytes(), Origin::Model).expect("it is marked");
        assert_eq!((Origin::of(&marked), marked[20]), (Some(Origin::Model), WEBP_HAS_XMP | 0b0001_0000));
    }

    #[test]
    fn the_mark_is_added_to_what_a_file_says_already() {
        let other = "<rdf:RDF xmlns:rdf='x'><rdf:Description xmp:CreatorTool='Diffusion'/></rdf:RDF>";
        let in_png: &'static [u8] = Box::leak([PNG_XMP, other.as_bytes()].concat().into_boxed_slice());
        let in_jpeg = [JPEG_XMP, other.as_bytes()].concat();
        for file in [png(&[(*b"iTXt", in_png)]), jpeg(&[(markers::APP1, &in_jpeg)])] {
            let marked = mark(file, Origin::Model).expect("it is marked");
            assert_eq!(Origin::of(&marked), Some(Origin::Model));
            let marked = text(&marked);
            assert_eq!((marked.matches("CreatorTool").count(), marked.matches("</rdf:RDF>").count()), (1, 1));
        }
    }

    #[test]
    fn a_file_with_a_manifest_is_left_byte_for_byte() {
        let webp = WebP::from_bytes(WEBP.into()).map(|mut webp| {
            webp.chunks_mut().push(RiffChunk::new(*b"C2PA", RiffContent::Data(Bytes::from_static(b"jumb"))));
            webp.encoder().bytes()
        });
        for file in
            [png(&[(*b"caBX", b"jumb")]), jpeg(&[(markers::APP11, b"JP\0\x01jumb")]), webp.expect("it is whole")]
        {
            assert_eq!(mark(file.clone(), Origin::Model).expect("it is told already"), file);
        }
    }

    #[test]
    fn what_cannot_be_marked_is_told() {
        let compressed = png(&[(*b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0...")]);
        assert!(matches!(mark(compressed, Origin::Model), Err(MarkError::OtherXmp)));
        let long = format!("{}<rdf:RDF>{}</rdf:RDF>", text(&JPEG_XMP.into()), " ".repeat(65_400));
        assert!(matches!(mark(jpeg(&[(markers::APP1, long.as_bytes())]), Origin::Model), Err(MarkError::OtherXmp)));
        assert!(matches!(mark(png(&[]).slice(..40), Origin::Model), Err(MarkError::Damaged(_))));
        assert!(matches!(mark(b"<html>"[..].into(), Origin::Model), Err(MarkError::UnknownFormat)));
    }
}
