//! The contract of Stability AI's text-to-image models on Bedrock.
//!
//! See "Stability AI models" in the Amazon Bedrock user guide,
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-stability-diffusion.html>.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::order::{Model, Order, OutputFormat};

/// The body of a request to the model.
#[derive(Serialize)]
struct Request<'a> {
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<&'a str>,
    aspect_ratio: &'static str,
    seed: u32,
    output_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
}

/// The bytes that ask the model for an order.
pub fn request(order: &Order) -> Vec<u8> {
    let unwanted = order.unwanted();
    let request = Request {
        prompt: order.prompt.as_str(),
        negative_prompt: unwanted.as_deref(),
        aspect_ratio: order.aspect_ratio.as_str(),
        // The model takes zero as a wish for a random seed.
        seed: order.seed.map_or(0, super::order::Seed::get),
        output_format: order.output_format.as_str(),
        // Core knows no other mode and refuses the field.
        mode: (order.model != Model::Core).then_some("text-to-image"),
    };
    serde_json::to_vec(&request).expect("a request of strings and numbers is always JSON")
}

/// A picture as the model painted it.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// The file.
    pub bytes: Bytes,
    /// The file's format, read from its first bytes.
    pub format: OutputFormat,
    /// The width in pixels, read from the file.
    pub width: u32,
    /// The height in pixels, read from the file.
    pub height: u32,
    /// The seed that the model says it used.
    pub seed: Option<u32>,
}

/// Why an answer of the model holds no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPicture {
    /// The filter refused the prompt, or another input, before anything was painted.
    #[error("the model's content filter refused the prompt")]
    PromptFiltered,
    /// The filter withheld the picture after it was painted.
    #[error("the model's content filter withheld the picture")]
    PictureFiltered,
    /// The model says that it failed.
    #[error("the model failed while it painted")]
    InferenceError,
    /// The answer is not what the contract promises.
    #[error("the model's answer holds no picture: {0}")]
    Malformed(&'static str),
}

/// The body of a model's answer. A filtered one has finish reasons and nothing else.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    seeds: Vec<Number>,
    #[serde(default)]
    finish_reasons: Vec<Option<String>>,
    #[serde(default, borrow)]
    images: Vec<Text<'a>>,
}

/// A string that is borrowed from the document where it can be.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A seed, which some answers spell as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u32),
    Text(String),
}

impl Answer<'_> {
    /// The seed, where the model says it, of an answer that does not say why it has no picture.
    fn seed(&self) -> Result<Option<u32>, NoPicture> {
        if let Some(reason) = self.finish_reasons.iter().flatten().next() {
            return Err(refusal(reason));
        }
        Ok(self.seeds.first().and_then(|seed| match seed {
            Number::Number(seed) => Some(*seed),
            Number::Text(text) => text.parse().ok(),
        }))
    }
}

/// Takes the picture out of a model's answer, in the memory that the answer has.
///
/// # Errors
/// When there is none, and why.
pub fn picture(mut body: Vec<u8>) -> Result<Picture, NoPicture> {
    const NOT_BASE64: NoPicture = NoPicture::Malformed("its image is not base64");
    // The picture is all but a hundred bytes of the answer. It is decoded where it lies, and only what stands around it
    // is read as JSON, which also proves that it is the image: without its text, the first image is empty.
    if let Some(text) = text_of_image(&body) {
        let around = [&body[..text.start], &body[text.end..]].concat();
        if let Ok(answer) = serde_json::from_slice::<Answer<'_>>(&around)
            && answer.images.first().is_some_and(|image| image.0.is_empty())
        {
            let seed = answer.seed()?;
            let decoded = base64_simd::STANDARD.decode_inplace(&mut body[text.clone()]).map_err(|_| NOT_BASE64)?;
            let end = text.start + decoded.len();
            return Picture::new(Bytes::from(body).slice(text.start..end), seed);
        }
    }
    let answer: Answer<'_> = serde_json::from_slice(&body).map_err(|_| NoPicture::Malformed("it is not JSON"))?;
    let seed = answer.seed()?;
    let image = answer.images.first().ok_or(NoPicture::Malformed("it has no images"))?;
    let bytes = base64_simd::STANDARD.decode_to_vec(image.0.as_bytes()).map_err(|_| NOT_BASE64)?;
    Picture::new(bytes.into(), seed)
}

/// Where the text of the first image seems to lie, if it is spelled without escapes.
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
    fn new(bytes: Bytes, seed: Option<u32>) -> Result<Self, NoPicture> {
        let format = OutputFormat::sniff(&bytes).ok_or(NoPicture::Malformed("its image has no known format"))?;
        let (width, height) = dimensions(&bytes, format).ok_or(NoPicture::Malformed("its image is cut short"))?;
        Ok(Self { bytes, format, width, height, seed })
    }
}

fn refusal(reason: &str) -> NoPicture {
    match reason {
        "Filter reason: output image" => NoPicture::PictureFiltered,
        "Inference error" => NoPicture::InferenceError,
        _ if reason.starts_with("Filter reason") => NoPicture::PromptFiltered,
        _ => NoPicture::Malformed("it has a finish reason that is not documented"),
    }
}

/// The width and height that a file's header tells, in pixels, without decoding the picture.
fn dimensions(bytes: &[u8], format: OutputFormat) -> Option<(u32, u32)> {
    let size = match format {
        OutputFormat::Png => {
            let header = bytes.get(12..24).filter(|header| header.starts_with(b"IHDR"))?;
            (be(&header[4..8]), be(&header[8..12]))
        }
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

/// Walks the segments of a JPEG file (ITU T.81, annex B) to its frame header.
fn jpeg_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let &[marker, code] = bytes.get(at..at + 2)?.first_chunk()?;
        let length = be(bytes.get(at + 2..at + 4)?) as usize;
        match code {
            _ if marker != 0xff || length < 2 => return None,
            // The frame headers are C0 to CF, without the tables C4, C8 and CC.
            0xc0..=0xcf if !matches!(code, 0xc4 | 0xc8 | 0xcc) => {
                let size = bytes.get(at + 5..at + 9)?;
                return Some((be(&size[2..4]), be(&size[0..2])));
            }
            _ => at += 2 + length,
        }
    }
}

/// Reads the first chunk of a WebP file (RFC 9649), which tells the size in one of three ways.
fn webp_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let chunk = bytes.get(12..30)?;
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

    fn png(width: u32, height: u32) -> Vec<u8> {
        let header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice();
        [header, &width.to_be_bytes(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat()
    }

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
    fn sizes_are_read_from_jpeg_and_webp_too() {
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc2\0\x0b\x08\x04\xc0\x03\x40\x01\x01\x11\0";
        assert_eq!(dimensions(jpeg, OutputFormat::Jpeg), Some((832, 1216)));
        let extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x3f\x03\0\xbf\x04\0";
        assert_eq!(dimensions(extended, OutputFormat::Webp), Some((832, 1216)));
    }

    #[test]
    fn a_filtered_answer_has_no_images_and_is_understood() {
        for (reason, expected) in [
            ("Filter reason: prompt", NoPicture::PromptFiltered),
            ("Filter reason: input image", NoPicture::PromptFiltered),
            ("Filter reason: output image", NoPicture::PictureFiltered),
            ("Inference error", NoPicture::InferenceError),
        ] {
            assert_eq!(answer(json!({ "finish_reasons": [reason] })).err(), Some(expected));
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
            json!({ "images": [base64(&png(832, 1216)[..20])] }),
            json!({ "images": [base64(b"\xff\xd8\xff\xe0\xff\xff")] }),
            json!({ "images": [base64(b"RIFF\0\0\0\0WEBPVP8X")] }),
            json!({ "images": [7] }),
            json!({ "finish_reasons": ["Something new"], "images": [base64(&png(1, 1))] }),
        ] {
            assert!(matches!(answer(body.clone()), Err(NoPicture::Malformed(_))), "{body}");
        }
        assert!(matches!(picture(b"<html>".to_vec()), Err(NoPicture::Malformed(_))));
        assert!(matches!(picture(Vec::new()), Err(NoPicture::Malformed(_))));
    }
}
