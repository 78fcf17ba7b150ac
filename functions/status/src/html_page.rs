use std::sync::LazyLock;

use aws_lambda_events::http::header;
use shared::aws::gateway::{Answer, Request};

use crate::digest;

const HTML: &str = include_str!("page.html");

/// The web page: one HTML file that only calls this API. Most instances never serve it, so it is digested on first use.
#[derive(Debug)]
pub(crate) struct Page {
    etag: String,
    script: String,
    style: String,
}

pub(crate) static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    // The page is sent both compressed and uncompressed, so its ETag is weak.
    etag: format!("W/\"{}\"", digest(HTML)),
    script: digest(element(HTML, "<script>", "</script>")),
    style: digest(element(HTML, "<style>", "</style>")),
});

impl Page {
    pub(crate) fn answer(&self, request: &Request, pictures: &str) -> Answer {
        let answer = if request.has(&self.etag) {
            Answer::empty(304).header(header::CACHE_CONTROL, "no-cache")
        } else {
            Answer::html(HTML)
        };
        answer
            .header(header::ETAG, &self.etag)
            .header(header::VARY, "Accept-Encoding")
            .header(header::CONTENT_SECURITY_POLICY, self.policy(pictures))
            .header(header::REFERRER_POLICY, "no-referrer")
    }

    /// Allows only the page's own script, and connections only to the API and the bucket.
    fn policy(&self, pictures: &str) -> String {
        let Self { script, style, .. } = self;
        format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data: {pictures}; \
             connect-src 'self' {pictures}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        )
    }
}

fn element<'a>(html: &'a str, open: &str, close: &str) -> &'a str {
    let content = html.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    content.expect("the page has one such element").0
}
