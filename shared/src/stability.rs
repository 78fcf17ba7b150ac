//! The wire format of Stability AI's text-to-image models on Bedrock, see
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-stability-diffusion.html>.

use std::borrow::Cow;
use std::ops::Range;

use base64_simd::{forgiving_decode_inplace, forgiving_decode_to_vec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::order::{Model, Order, OutputFormat};

#[derive(Serialize)]
struct ModelRequest<'a> {
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<&'a str>,
    aspect_ratio: &'static str,
    seed: u32,
    output_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
}

/// The body of a request for this order.
pub fn request(order: &Order) -> Vec<u8> {
    let unwanted = order.unwanted();
    let request = ModelRequest {
        prompt: order.prompt.as_str(),
        negative_prompt: unwanted.as_deref(),
        aspect_ratio: order.aspect_ratio.as_str(),
        // Zero asks for a random seed.
        seed: order.seed.map_or(0, super::order::Seed::get),
        output_format: order.output_format.as_str(),
        // Core has no other mode and rejects the field.
        mode: (order.model != Model::Core).then_some("text-to-image"),
    };
    serde_json::to_vec(&request).expect("a request of strings and numbers is always JSON")
}

/// A picture as the model painted it.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the other fields say what they are")]
pub struct Picture {
    pub bytes: Bytes,
    /// The file's format, read from its first bytes.
    pub format: OutputFormat,
    pub width: u32,
    pub height: u32,
    /// The seed that the model reports.
    pub seed: Option<u32>,
}

/// Why the model's answer contains no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPicture {
    /// The filter rejected the prompt or another input before anything was painted.
    #[error("the model's content filter refused the prompt")]
    PromptFiltered,
    /// The filter withheld the finished picture.
    #[error("the model's content filter withheld the picture")]
    PictureFiltered,
    /// The model reports that it failed.
    #[error("the model failed while it painted")]
    InferenceError,
    /// The answer does not have the documented form.
    #[error("the model's answer contains no picture: {0}")]
    Malformed(&'static str),
}

/// A filtered answer has only finish reasons. Each field is parsed alone, as an odd one must not cost the picture.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    seeds: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reasons: Option<&'a RawValue>,
    #[serde(borrow)]
    images: Option<&'a RawValue>,
}

impl Answer<'_> {
    /// Some answers have the seed as a string.
    fn seed(&self, index: usize) -> Option<u32> {
        list(self.seeds).get(index)?.get().trim_matches('"').parse().ok()
    }

    fn verdicts(&self) -> impl Iterator<Item = Option<NoPicture>> {
        let reasons = list(self.finish_reasons).into_iter();
        reasons.map(|reason| serde_json::from_str::<String>(reason.get()).ok().map(|reason| refusal(&reason)))
    }

    /// A rejected picture may be blurred.
    fn check_filter(&self, index: usize) -> Result<(), NoPicture> {
        match self.verdicts().nth(index).flatten() {
            Some(filtered @ (NoPicture::PromptFiltered | NoPicture::PictureFiltered)) => Err(filtered),
            _ => Ok(()),
        }
    }

    fn no_picture(&self, why: &'static str) -> NoPicture {
        self.verdicts().flatten().next().unwrap_or(NoPicture::Malformed(why))
    }
}

fn list(value: Option<&RawValue>) -> Vec<&RawValue> {
    value.and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default()
}

/// Extracts the picture from a model's answer, reusing its memory. A complete picture was paid for, so it is taken
/// whatever else the answer says, unless the filter rejected it.
pub fn picture(mut body: Vec<u8>) -> Result<Picture, NoPicture> {
    // Nearly all of the answer is the picture. It is decoded in place, and only the rest is parsed as JSON. That also
    // proves that the right text was found: without it, the only image must be empty.
    if let Some(text) = text_of_image(&body) {
        let around = [&body[..text.start], &body[text.end..]].concat();
        if let Ok(answer) = serde_json::from_slice::<Answer<'_>>(&around)
            && let [image] = list(answer.images)[..]
            && image.get() == r#""""#
        {
            answer.check_filter(0)?;
            let decoded = forgiving_decode_inplace(&mut body[text.clone()]);
            let end = text.start + decoded.map_err(|_| answer.no_picture(NOT_BASE64))?.len();
            let picture = Picture::new(Bytes::from(body).slice(text.start..end), answer.seed(0));
            return picture.map_err(|why| answer.no_picture(why));
        }
    }
    let answer: Answer<'_> = serde_json::from_slice(&body).map_err(|_| NoPicture::Malformed("it is not JSON"))?;
    let mut why = "it has no images";
    for (index, image) in list(answer.images).into_iter().enumerate() {
        answer.check_filter(index)?;
        let text = serde_json::from_str::<Cow<'_, str>>(image.get()).unwrap_or_default();
        let decoded = forgiving_decode_to_vec(text.as_bytes()).map_err(|_| NOT_BASE64);
        match decoded.and_then(|bytes| Picture::new(bytes.into(), answer.seed(index))) {
            Ok(picture) => return Ok(picture),
            Err(fault) => why = fault,
        }
    }
    Err(answer.no_picture(why))
}

const NOT_BASE64: &str = "its image is not base64";

/// The position of the first image's text, if it contains no escapes.
fn text_of_image(body: &[u8]) -> Option<Range<usize>> {
    const NAME: &[u8] = b"\"images\"";
    let mut start = memchr::memmem::find(body, NAME)? + NAME.len();
    for mark in *b":[\"" {
        start += body[start..].iter().position(|byte| !byte.is_ascii_whitespace())?;
        if body[start] != mark {
            return None;
        }
        start += 1;
    }
    let end = start + memchr::memchr2(b'"', b'\\', &body[start..])?;
    (body[end] == b'"').then_some(start..end)
}

impl Picture {
    fn new(bytes: Bytes, seed: Option<u32>) -> Result<Self, &'static str> {
        let format = OutputFormat::sniff(&bytes).ok_or("its image has no known format")?;
        let (width, height) = dimensions(&bytes, format).ok_or("its image breaks off")?;
        Ok(Self { bytes, format, width, height, seed })
    }
}

fn refusal(reason: &str) -> NoPicture {
    match reason {
        // Used by Stability's own API, which returns the picture blurred.
        "Filter reason: output image" | "CONTENT_FILTERED" => NoPicture::PictureFiltered,
        "Inference error" => NoPicture::InferenceError,
        _ if reason.starts_with("Filter reason") => NoPicture::PromptFiltered,
        _ => NoPicture::Malformed("it has a finish reason that is not documented"),
    }
}

/// The width and height in pixels, read without decoding; `None` if the file is cut off. Padding at its end is allowed.
fn dimensions(bytes: &[u8], format: OutputFormat) -> Option<(u32, u32)> {
    let size = match format {
        OutputFormat::Png => png_dimensions(bytes)?,
        OutputFormat::Jpeg => jpeg_dimensions(bytes)?,
        OutputFormat::Webp => webp_dimensions(bytes)?,
    };
    (size.0 > 0 && size.1 > 0).then_some(size)
}

fn be(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

fn le(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// Reads all chunks of a PNG file (PNG specification, section 5) up to the last; there must be one with pixels.
fn png_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let (mut chunks, mut size, mut pixels) = (bytes.get(8..)?, None, false);
    loop {
        let (head, rest) = chunks.split_first_chunk::<8>()?;
        let (data, after) = rest.split_at_checked(be(&head[..4]) as usize)?;
        // Each chunk ends with a checksum of four bytes.
        chunks = after.get(4..)?;
        match &head[4..] {
            b"IHDR" => size = Some((be(data.get(..4)?), be(data.get(4..8)?))),
            b"IDAT" => pixels = true,
            b"IEND" => return size.filter(|_| pixels),
            _ => {}
        }
    }
}

/// Reads the markers of a JPEG file (ITU T.81, annex B) up to the end of the image.
fn jpeg_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let (mut rest, mut size) = (bytes.get(2..)?, None);
    loop {
        // Skip the pixel data between markers. Any number of fill bytes FF may precede a marker.
        rest = &rest[memchr::memchr(0xff, rest)?..];
        let fill = rest.iter().take_while(|byte| **byte == 0xff).count();
        let (&code, after) = rest[fill..].split_first()?;
        rest = match code {
            // An escaped FF in the data, or a marker without a segment.
            0x00 | 0x01 | 0xd0..=0xd8 => after,
            0xd9 => return size,
            _ => {
                let segment = after.get(..be(after.get(..2)?) as usize)?;
                // C0 to CF are frame headers, except for the tables C4, C8 and CC.
                if matches!(code, 0xc0..=0xcf) && !matches!(code, 0xc4 | 0xc8 | 0xcc) {
                    size = Some((be(segment.get(5..7)?), be(segment.get(3..5)?)));
                }
                &after[segment.len()..]
            }
        };
    }
}

/// Reads the first chunk of a WebP file (RFC 9649), which has one of three forms. The header has the file's length.
fn webp_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let file = bytes.get(8..)?.get(..le(&bytes[4..8]) as usize)?;
    let chunk = file.get(4..22)?;
    match &chunk[..4] {
        b"VP8X" => Some((le(&chunk[12..15]) + 1, le(&chunk[15..18]) + 1)),
        b"VP8 " => Some((le(&chunk[14..16]) & 0x3fff, le(&chunk[16..18]) & 0x3fff)),
        b"VP8L" => {
            let bits = le(&chunk[9..13]);
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poster::NO_LETTERING;
    use serde_json::{Value, json};

    fn order(value: Value) -> Order {
        Order::parse(value, "", Model::Core).expect("a good order")
    }

    fn answer(value: Value) -> Result<Picture, NoPicture> {
        picture(value.to_string().into_bytes())
    }

    /// A PNG file whose checksums and pixels do not matter here.
    fn png(width: u32, height: u32) -> Vec<u8> {
        let begin = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice();
        let end = b"\0\0\0\x03IDATpixcrc!\0\0\0\0IENDcrc!".as_slice();
        [begin, &width.to_be_bytes(), &height.to_be_bytes(), b"\x08\x02\0\0\0crc!", end].concat()
    }

    /// A JPEG file of 832 by 1216 pixels, with fill bytes, a thumbnail that ends before it does, a stuffed byte and a
    /// restart marker in its data, and a second scan.
    const JPEG: &[u8] =
        b"\xff\xd8\xff\xff\xff\xe1\0\x06\xff\xd8\xff\xd9\xff\xc2\0\x0b\x08\x04\xc0\x03\x40\x01\x01\x11\0\
        \xff\xda\0\x02a\xff\0b\xff\xd0c\xff\xc4\0\x02\xff\xda\0\x02d\xff\xff\xd9";

    /// A WebP file of 832 by 1216 pixels.
    const WEBP: &[u8] = b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x3f\x03\0\xbf\x04\0VP8 ";

    fn base64(bytes: &[u8]) -> String {
        base64_simd::STANDARD.encode_to_string(bytes)
    }

    #[test]
    fn requests_hold_what_each_model_takes() {
        let core = request(&order(json!({ "prompt": "a \"quoted\" heist" })));
        assert_eq!(
            String::from_utf8(core).expect("JSON is UTF-8"),
            r#"{"prompt":"a \"quoted\" heist","aspect_ratio":"2:3","seed":0,"output_format":"png"}"#
        );
        let large = order(json!({
            "prompt": "x", "negative_prompt": "y", "seed": 7, "aspect_ratio": "9:21", "output_format": "webp",
            "model": "stability.sd3-5-large-v1:0", "metadata": { "not": "sent" }
        }));
        assert_eq!(
            serde_json::from_slice::<Value>(&request(&large)).expect("JSON"),
            json!({
                "prompt": "x", "negative_prompt": "y", "aspect_ratio": "9:21", "seed": 7, "output_format": "webp",
                "mode": "text-to-image"
            })
        );
    }

    #[test]
    fn a_picture_that_gets_lettering_is_asked_for_without() {
        let unwanted = |value| {
            let request: Value = serde_json::from_slice(&request(&order(value))).expect("JSON");
            request["negative_prompt"].as_str().map(str::to_owned)
        };
        let poster = json!({ "title": "Heist" });
        assert_eq!(unwanted(json!({ "prompt": "x", "poster": null })), None);
        assert_eq!(unwanted(json!({ "prompt": "x", "poster": poster })).as_deref(), Some(NO_LETTERING));
        let both = unwanted(json!({ "prompt": "x", "negative_prompt": "people", "poster": poster }));
        assert_eq!(both, Some(format!("people, {NO_LETTERING}")));
        let longest = "y".repeat(10_000 - 2 - NO_LETTERING.len());
        let longest = unwanted(json!({ "prompt": "x", "negative_prompt": longest, "poster": poster }));
        assert_eq!(longest.map(|text| text.len()), Some(10_000));
    }

    #[test]
    fn a_picture_is_read_with_its_true_size() {
        for seed in [json!(42), json!("42")] {
            let body = json!({ "seeds": [seed], "finish_reasons": [null], "images": [base64(&png(832, 1216))] });
            let picture = answer(body).expect("a picture");
            assert_eq!((picture.width, picture.height, picture.seed), (832, 1216, Some(42)));
            assert_eq!(picture.format, OutputFormat::Png);
        }
        assert!(answer(json!({ "images": [base64(&png(1, 1))] })).is_ok_and(|picture| picture.seed.is_none()));
    }

    #[test]
    fn however_the_answer_is_spelled_its_picture_is_the_same() {
        let image = base64(&png(832, 1216));
        let escaped = image.replacen('A', "\\u0041", 1);
        for body in [
            format!(r#"{{"images":["{image}"],"seeds":[42],"finish_reasons":[null]}}"#),
            format!("{{ \"seeds\" : [42],\n\"images\" :\t[ \"{image}\" ] }}"),
            format!(r#"{{"seeds":[42],"images":["{image}","{image}"]}}"#),
            format!(r#"{{"seeds":[42],"images":["{escaped}"]}}"#),
            format!(r#"{{"seeds":[42],"\u0069mages":["{image}"]}}"#),
            // Only the picture of the answer itself counts.
            format!(r#"{{"other":{{"images":["AAAA"]}},"seeds":[42],"images":["{image}"]}}"#),
            format!(r#"{{"other":["\"images\":[\"AAAA\"]"],"seeds":[42],"images":["{image}"]}}"#),
        ] {
            let picture = picture(body.clone().into_bytes()).expect(&body);
            assert_eq!((&picture.bytes[..], picture.seed), (&png(832, 1216)[..], Some(42)), "{body}");
        }
        let cut_short = format!(r#"{{"images":["{image}"],"seeds":[42"#);
        assert_eq!(picture(cut_short.into_bytes()).err(), Some(NoPicture::Malformed("it is not JSON")));
    }

    #[test]
    fn a_picture_is_taken_only_whole() {
        for file in [&png(832, 1216), JPEG, WEBP] {
            let format = OutputFormat::sniff(file).expect("a known format");
            assert_eq!(dimensions(file, format), Some((832, 1216)), "{format}");
            assert_eq!(dimensions(&[file, b"\0\0 behind the end"].concat(), format), Some((832, 1216)), "{format}");
            for end in 0..file.len() {
                let body = json!({ "images": [base64(&file[..end])] });
                assert!(matches!(answer(body), Err(NoPicture::Malformed(_))), "{format}, cut to {end} bytes");
            }
        }
        let without_pixels = [&png(1, 1)[..33], b"\0\0\0\0IENDcrc!"].concat();
        assert_eq!(dimensions(&without_pixels, OutputFormat::Png), None);
    }

    #[test]
    fn a_whole_picture_is_taken_whatever_the_rest_of_the_answer_says() {
        let image = base64(&png(832, 1216));
        let spaced = format!("{}\\n{}", &image[..40], image[40..].trim_end_matches('='));
        for (rest, seed) in [
            (r#""seeds":[42],"finish_reasons":null"#, Some(42)),
            (r#""seeds":[4294967295],"finish_reasons":"SUCCESS""#, Some(u32::MAX)),
            (r#""seeds":[4294967296],"finish_reasons":["SUCCESS"]"#, None),
            (r#""seeds":[1e999],"finish_reasons":[""]"#, None),
            (r#""seeds":[42.5],"finish_reasons":[{"reason":1}]"#, None),
            (r#""seeds":[-1],"finish_reasons":["Inference error"]"#, None),
            (r#""seeds":[null],"finish_reasons":[]"#, None),
            (r#""seeds":[],"finish_reasons":[null,"Filter reason: prompt"]"#, None),
            (r#""seeds":null,"finish_reasons":{}"#, None),
            (r#""seeds":["none"],"new":[[]]"#, None),
        ] {
            for images in [
                format!(r#""{image}""#),
                format!(r#""{spaced}""#),
                format!(r#""{image}",null"#),
                format!(r#""{image}","AAAA""#),
            ] {
                let body = format!(r#"{{{rest},"images":[{images}]}}"#);
                let picture = picture(body.clone().into_bytes()).expect(&body);
                assert_eq!((&picture.bytes[..], picture.seed), (&png(832, 1216)[..], seed), "{body}");
            }
        }
        let second = json!({ "seeds": [1, 2], "images": [base64(&png(832, 1216)[..40]), image] });
        assert_eq!(answer(second).ok().and_then(|picture| picture.seed), Some(2));
        // Stability's own API hands out what it filtered, but blurred.
        for reason in ["CONTENT_FILTERED", "Filter reason: output image"] {
            let blurred = json!({ "seeds": [1], "finish_reasons": [reason], "images": [image] });
            assert_eq!(answer(blurred).err(), Some(NoPicture::PictureFiltered));
        }
    }

    #[test]
    fn a_filtered_answer_has_no_images_and_is_understood() {
        for (reason, expected) in [
            ("Filter reason: prompt", NoPicture::PromptFiltered),
            ("Filter reason: input image", NoPicture::PromptFiltered),
            ("Filter reason: output image", NoPicture::PictureFiltered),
            ("Inference error", NoPicture::InferenceError),
        ] {
            for body in [
                json!({ "finish_reasons": [reason] }),
                json!({ "seeds": null, "finish_reasons": [reason], "images": null }),
                json!({ "seeds": [], "finish_reasons": [null, reason], "images": [""] }),
            ] {
                assert_eq!(answer(body.clone()).err(), Some(expected.clone()), "{body}");
            }
        }
    }

    #[test]
    fn what_breaks_the_contract_is_an_error_and_never_a_panic() {
        for body in [
            json!({}),
            json!(null),
            json!({ "images": [] }),
            json!({ "images": ["%%%"] }),
            json!({ "images": [base64(b"<html>")] }),
            json!({ "images": [base64(b"\xff\xd8\xff\xe0\xff\xff")] }),
            json!({ "images": [base64(b"\xff\xd8\xff\xc0\0\0\xff\xd9")] }),
            json!({ "images": [base64(b"RIFF\0\0\0\0WEBPVP8X")] }),
            json!({ "images": [base64(b"RIFF\xff\xff\xff\xffWEBPVP8X")] }),
            json!({ "images": [7] }),
            json!({ "finish_reasons": ["Something new"], "images": [] }),
        ] {
            assert!(matches!(answer(body.clone()), Err(NoPicture::Malformed(_))), "{body}");
        }
        assert!(matches!(picture(b"<html>".to_vec()), Err(NoPicture::Malformed(_))));
        assert!(matches!(picture(Vec::new()), Err(NoPicture::Malformed(_))));
    }
}
