//! S3 on a directory, by `s3s` and `s3s-fs`.
//!
//! `s3s-fs` stores an object first, and its media type and metadata in other files afterwards. S3 itself shows an object whole
//! or not at all, and the worker relies on that. So a put here continues when its client disconnects, and is undone at the
//! next start if the process ended in the middle of it.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, ORIGIN,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

use super::{Error, Shutdown, serve_router};

const NO_SUCH_BUCKET: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
    <Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>";

/// The prefix of the empty file that marks an unfinished put of a new object. The rest of its name is the object's path in
/// base64. It is in the directory of the buckets.
const UNFINISHED: &str = ".put.";

/// An embedded S3 with path-style addresses and one access key.
#[derive(Clone)]
pub(crate) struct S3 {
    root: Arc<Path>,
    service: S3Service,
}

impl S3 {
    /// The buckets in `root`, which is created if it does not exist. A bucket is a directory, and an object is a file in it.
    /// Requests and presigned URLs that are not signed by this key are answered with 403.
    pub(crate) fn open(root: &Path, access_key_id: &str, secret_access_key: &str) -> Result<Self, Error> {
        let storage_error = |source| Error::Storage { path: root.to_owned(), source };
        std::fs::create_dir_all(root).map_err(storage_error)?;
        take_back_unfinished(root).map_err(storage_error)?;
        // Only the debug form of this error has its cause.
        let files = FileSystem::new(root).map_err(|error| storage_error(io::Error::other(format!("{error:?}"))))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(access_key_id, secret_access_key));
        Ok(Self { root: Arc::from(root), service: builder.build() })
    }

    pub(crate) fn create_bucket(&self, name: &str) -> Result<(), Error> {
        let path = self.root.join(name);
        std::fs::create_dir_all(&path).map_err(|source| Error::Storage { path, source })
    }

    pub(crate) async fn serve(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), Error> {
        let router = Router::new().fallback(answer).with_state(self);
        serve_router(listener, router, shutdown).await
    }

    async fn answer(&self, request: Request) -> Response {
        // s3s-fs would create a missing bucket for a put.
        if let Some((bucket, key)) = request.uri().path().trim_start_matches('/').split_once('/')
            && !key.is_empty()
            && !self.root.join(bucket).is_dir()
        {
            return (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/xml")], NO_SUCH_BUCKET).into_response();
        }
        if request.method() != Method::PUT {
            return self.call(request).await;
        }
        let s3 = self.clone();
        let put = tokio::spawn(async move {
            let unfinished = match Unfinished::begin(&s3.root, request.uri().path()).await {
                Ok(unfinished) => unfinished,
                Err(error) => {
                    tracing::warn!(%error, "the embedded S3 cannot store an object");
                    return StatusCode::INTERNAL_SERVER_ERROR.into_response();
                }
            };
            let response = s3.call(request).await;
            if let Some(unfinished) = unfinished {
                unfinished.end().await;
            }
            response
        });
        put.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }

    async fn call(&self, request: Request) -> Response {
        match self.service.call(request.map(s3s::Body::http_body_unsync)).await {
            Ok(response) => response.map(Body::new),
            Err(error) => {
                tracing::warn!(?error, "the embedded S3 failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

struct Unfinished(PathBuf);

impl Unfinished {
    /// Marks the object, unless it already exists and so is whole.
    async fn begin(root: &Path, path: &str) -> io::Result<Option<Self>> {
        let path = path.trim_start_matches('/');
        // A path such as `../x` will be refused. It must not get a mark, which the next start would follow.
        let plain = Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
        if !plain || root.join(path).exists() {
            return Ok(None);
        }
        let mark = root.join(format!("{UNFINISHED}{}", base64_simd::URL_SAFE_NO_PAD.encode_to_string(path)));
        tokio::fs::write(&mark, "").await?;
        Ok(Some(Self(mark)))
    }

    async fn end(self) {
        // Another put of the same object may have removed it.
        if let Err(error) = tokio::fs::remove_file(&self.0).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove the mark of a finished put");
        }
    }
}

/// Deletes the objects whose put did not finish. No caller was told that they are stored.
fn take_back_unfinished(root: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(encoded) = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED)) else { continue };
        let path =
            base64_simd::URL_SAFE_NO_PAD.decode_to_vec(encoded).ok().and_then(|path| String::from_utf8(path).ok());
        if let Some(path) = path {
            match std::fs::remove_file(root.join(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::remove_file(entry.path())?;
    }
    Ok(())
}

/// Answers one request. Pages of any origin may send it and read the answer, because a presigned URL works for everybody.
async fn answer(State(s3): State<S3>, request: Request) -> Response {
    let from_browser = request.headers().contains_key(ORIGIN);
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight { StatusCode::NO_CONTENT.into_response() } else { s3.answer(request).await };
    if from_browser {
        let any = HeaderValue::from_static("*");
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, any.clone());
        if preflight {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, PUT"));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, any);
        } else {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Content-Disposition, ETag"));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use aws_sdk_s3::Client;
    use aws_sdk_s3::config::Credentials;
    use aws_sdk_s3::presigning::PresigningConfig;
    use aws_sdk_s3::primitives::ByteStream;
    use tempfile::TempDir;

    use super::super::tests::Running;
    use super::*;

    const KEY: &str = "posters/2026/JOB-1.png";

    /// A service on a directory of its own, and a client of a bucket with one poster.
    async fn start_with_poster() -> (TempDir, Running, Client) {
        let directory = tempfile::tempdir().expect("a directory");
        let service = S3::open(&directory.path().join("s3"), "key", "secret").expect("a directory of buckets");
        let service = Running::start(|listener, signal| service.serve(listener, signal)).await;
        let client = client_of(&service, "key", "secret");
        client.create_bucket().bucket("posters").send().await.expect("a bucket");
        client
            .put_object()
            .bucket("posters")
            .key(KEY)
            .content_type("image/png")
            .content_disposition("inline; filename=\"poster.png\"")
            .metadata("seed", "7")
            .body(ByteStream::from_static(b"a poster"))
            .send()
            .await
            .expect("an object");
        (directory, service, client)
    }

    fn client_of(service: &Running, access_key_id: &str, secret_access_key: &str) -> Client {
        let credentials = Credentials::new(access_key_id, secret_access_key, None, None, "test");
        let config = aws_sdk_s3::config::Builder::from(&service.sdk_config_as(credentials)).force_path_style(true);
        Client::from_conf(config.build())
    }

    #[tokio::test]
    async fn an_object_keeps_what_was_said_about_it_until_it_is_deleted() {
        let (_directory, service, client) = start_with_poster().await;
        let head = client.head_object().bucket("posters").key(KEY).send().await.expect("a head");
        assert_eq!(head.content_type(), Some("image/png"));
        assert_eq!(head.content_disposition(), Some("inline; filename=\"poster.png\""));
        assert_eq!(head.content_length(), Some(8));
        assert_eq!(head.metadata().expect("metadata")["seed"], "7");
        let got = client.get_object().bucket("posters").key(KEY).send().await.expect("an object");
        assert_eq!(got.body.collect().await.expect("a body").into_bytes().as_ref(), b"a poster");
        let list = client.list_objects_v2().bucket("posters").prefix("posters/2026/").send().await.expect("a list");
        assert_eq!(list.contents().iter().filter_map(|object| object.key()).collect::<Vec<_>>(), [KEY]);

        client.delete_object().bucket("posters").key(KEY).send().await.expect("a deletion");
        client.delete_object().bucket("posters").key(KEY).send().await.expect("the same again");
        let error = client.head_object().bucket("posters").key(KEY).send().await.expect_err("it is gone");
        assert!(error.into_service_error().is_not_found());
        let error = client.get_object().bucket("posters").key(KEY).send().await.expect_err("it is gone");
        assert!(error.into_service_error().is_no_such_key());
        let put = client.put_object().bucket("nowhere").key(KEY).body(ByteStream::from_static(b"lost"));
        let error = put.send().await.expect_err("no such bucket").into_service_error();
        assert_eq!(error.meta().code(), Some("NoSuchBucket"));
        service.stop().await;
    }

    #[tokio::test]
    async fn an_object_is_whole_or_not_there_after_the_process_was_killed_over_it() {
        let (directory, service, client) = start_with_poster().await;
        service.stop().await;
        let root = directory.path().join("s3");
        // A process is killed right after it has stored an object, and before it has stored what is known of it.
        let torn = "posters/posters/2026/JOB-2.png";
        assert!(Unfinished::begin(&root, torn).await.expect("a directory").is_some());
        std::fs::write(root.join(torn), "another poster").expect("a file");
        // Another one is killed over a put of what was there already.
        assert!(Unfinished::begin(&root, &format!("posters/{KEY}")).await.expect("a directory").is_none());
        drop(client);

        let service = S3::open(&root, "key", "secret").expect("the same buckets");
        let service = Running::start(|listener, signal| service.serve(listener, signal)).await;
        let client = client_of(&service, "key", "secret");
        let list = client.list_objects_v2().bucket("posters").send().await.expect("a list");
        assert_eq!(list.contents().iter().filter_map(|object| object.key()).collect::<Vec<_>>(), [KEY]);
        let marks = std::fs::read_dir(&root).expect("files").filter_map(Result::ok);
        assert_eq!(marks.filter(|file| file.file_name().to_string_lossy().starts_with(UNFINISHED)).count(), 0);
        service.stop().await;
    }

    #[tokio::test]
    async fn only_the_holder_of_the_key_gets_in() {
        let (_directory, service, _client) = start_with_poster().await;
        let unsigned = reqwest::get(format!("http://{}/posters/{KEY}", service.address)).await.expect("an answer");
        assert_eq!(unsigned.status(), 403);
        for (access_key_id, secret_access_key) in [("key", "wrong"), ("other", "secret")] {
            let intruder = client_of(&service, access_key_id, secret_access_key);
            let error = intruder.get_object().bucket("posters").key(KEY).send().await.expect_err("refused");
            assert_eq!(error.raw_response().expect("an answer").status().as_u16(), 403);
        }
        service.stop().await;
    }

    #[tokio::test]
    async fn a_presigned_url_works_as_signed_and_until_it_expires() {
        let (_directory, service, client) = start_with_poster().await;
        let presign = async |start: SystemTime| {
            let config = PresigningConfig::builder().start_time(start).expires_in(Duration::from_secs(60));
            let request = client.get_object().bucket("posters").key(KEY);
            let presigned = request.presigned(config.build().expect("complete")).await.expect("a URL");
            presigned.uri().to_owned()
        };
        let web = reqwest::Client::new();
        let status_of = async |url: &str| web.get(url).send().await.expect("an answer").status().as_u16();

        let url = presign(SystemTime::now()).await;
        let answer = web.get(&url).header("origin", "https://example.org").send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "image/png");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        assert_eq!(answer.bytes().await.expect("a body").as_ref(), b"a poster");

        assert_eq!(status_of(&url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")).await, 403);
        assert_eq!(status_of(&url.replace("JOB-1", "JOB-2")).await, 403);
        assert_eq!(web.delete(&url).send().await.expect("an answer").status(), 403);
        let expired = presign(SystemTime::now() - Duration::from_secs(61)).await;
        assert_eq!(status_of(&expired).await, 403);
        service.stop().await;
    }
}
