use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use shared::api::{ImageView, JobView};
use shared::backoff::full_jitter;
use shared::text::hex;
use tempfile::TempPath;

use crate::api::Api;
use crate::failure::{Failure, OfFile};
use crate::http::{Kind, next_chunk};
use crate::manifest::{Manifest, Picture, unnamed};

const TRIES: u32 = 6;

const MAX_NAME_CHARS: usize = 40;

const MAX_PROMPT_CHARS: usize = 2000;

/// Downloads the picture of a job, records it, and then names its file. The inner error is why this one is not there.
pub(crate) async fn save(
    api: &Api,
    manifest: &Manifest,
    job: &JobView,
    line: Option<u64>,
) -> Result<Result<Picture, String>, Failure> {
    let Some(image) = &job.image else { return Ok(Err("the job has none".to_owned())) };
    let file = format!("{}.{}", name_of(job, line), ending(&image.content_type));
    let (path, unnamed) = (manifest.directory.join(&file), unnamed(&manifest.directory, &file));
    // Deletes an incomplete file, even if the command is stopped.
    let mut half = TempPath::try_from_path(&unnamed).of_file(&unnamed)?;
    let into = (&*unnamed, || File::create(&unnamed));
    let sha256 = match download(api, &format!("/jobs/{}/image", job.id), Some(image), into).await {
        Ok(Ok((_, sha256))) => sha256,
        Ok(Err(why)) => return Ok(Err(format!("it cannot be downloaded: {why}"))),
        Err(Failure::Refused(problem)) => return Ok(Err(problem.detail)),
        Err(failure) => return Err(failure),
    };
    half.disable_cleanup(true);
    let picture = Picture {
        file,
        bytes: image.bytes,
        sha256,
        job: job.id,
        batch: job.batch_id,
        line,
        title: job.poster.as_ref().map(|poster| poster.title.as_str().to_owned()),
        prompt: job.prompt.as_str().chars().take(MAX_PROMPT_CHARS).collect(),
        width: image.width,
        height: image.height,
    };
    manifest.add(&picture)?;
    std::fs::rename(unnamed, &path).of_file(&path)?;
    Ok(Ok(picture))
}

/// Downloads the document of a batch to which this path of the API redirects. The file has no name, and is at its beginning.
pub(crate) async fn download_document(api: &Api, path: &str) -> Result<File, Failure> {
    let name = Path::new("a temporary file");
    let downloaded = download(api, path, None, (name, tempfile::tempfile)).await?;
    let (mut file, _) = downloaded.map_err(|why| Failure::Service(format!("{path} cannot be downloaded: {why}")))?;
    file.rewind().of_file(name)?;
    Ok(file)
}

/// Downloads the file to which `path` of the API redirects, first from the URL of `image` if there is one. Each try writes
/// to a new file from `open`, called `name` in errors. Returns the file and its SHA-256, or why the last try failed.
async fn download(
    api: &Api,
    path: &str,
    image: Option<&ImageView>,
    (name, open): (&Path, impl Fn() -> io::Result<File>),
) -> Result<Result<(File, String), String>, Failure> {
    let (mut known, mut why) = (image.map(|image| image.url.clone()), String::new());
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(full_jitter(Duration::from_millis(500), Duration::from_secs(20), attempt)).await;
        }
        // A URL may have expired with the credentials that signed it, so each try has another.
        let url = match known.take() {
            Some(url) => url,
            None => api.file_url(path).await?,
        };
        let mut body = match api.file(&url).await {
            Ok(answer) if answer.status().is_success() => answer.into_body(),
            Ok(answer) => {
                why = format!("the bucket answered {}", answer.status());
                continue;
            }
            Err(error) if error.kind == Kind::Lasting => return Err(Failure::Service(error.why)),
            Err(error) => {
                why = error.why;
                continue;
            }
        };
        let (mut file, mut bytes, mut digest) = (open().of_file(name)?, 0, Sha256::new());
        why = loop {
            match next_chunk(&mut body).await {
                Ok(Some(piece)) => {
                    bytes += piece.len() as u64;
                    // An answer without an end would fill the disk.
                    if let Some(image) = image.filter(|image| image.bytes < bytes) {
                        break format!("it has more than {} bytes", image.bytes);
                    }
                    digest.update(&piece);
                    file.write_all(&piece).of_file(name)?;
                }
                Ok(None) => match image.filter(|image| image.bytes != bytes) {
                    Some(image) => break format!("it has {bytes} bytes instead of {}", image.bytes),
                    None => return Ok(Ok((file, hex(&digest.finalize())))),
                },
                Err(error) => break error.why,
            }
        };
    }
    Ok(Err(why))
}

/// A file name without its ending. The end of the job's id, which is random, keeps pictures from overwriting each other.
fn name_of(job: &JobView, line: Option<u64>) -> String {
    let (line, id) = (line.map(|line| format!("{line:06}-")).unwrap_or_default(), job.id.to_string());
    let words = words_of(job.custom_id.as_ref().map_or(job.prompt.as_str(), |id| id.as_str()));
    format!("{line}{words}-{}", &id[id.len() - 12..])
}

/// The first words of a text that fit into a file name. Only a first word that is too long is cut.
fn words_of(text: &str) -> String {
    let mut name = String::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if name.is_empty() {
            name.extend(word.chars().take(MAX_NAME_CHARS));
        } else if name.len() + 1 + word.len() <= MAX_NAME_CHARS {
            name = name + "-" + word;
        } else {
            break;
        }
    }
    if name.is_empty() { "poster".to_owned() } else { name.to_ascii_lowercase() }
}

fn ending(content_type: &str) -> &'static str {
    match content_type {
        "image/jpeg" => "jpg",
        "image/webp" => "webp",
        _ => "png",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_end_with_a_whole_word() {
        for (text, name) in [
            ("A noir detective thriller in 1940s Venice with", "a-noir-detective-thriller-in-1940s"),
            ("Exactly forty letters fit in this: a  name", "exactly-forty-letters-fit-in-this-a-name"),
            ("../../etc/passwd", "etc-passwd"),
            (&"long".repeat(20), &"long".repeat(10)),
            ("月面の強盗団", "poster"),
            ("?!", "poster"),
        ] {
            assert_eq!(words_of(text), name);
        }
    }
}
