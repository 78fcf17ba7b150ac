//! The page for people: one file of HTML that speaks to this API alone.

use std::sync::LazyLock;

use aws_lambda_events::http::header;
use shared::aws::gateway::{Answer, Request};

use crate::digest;

const HTML: &str = include_str!("../../../web/index.html");

/// The page, with what its headers say of it. Most starts of the function never see anybody ask for it, so its digests
/// are made when the first one does.
#[derive(Debug)]
pub(crate) struct Page {
    etag: String,
    script: String,
    style: String,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    // It is weak, because the page is sent compressed and as it is.
    etag: format!("W/\"{}\"", digest(HTML)),
    script: digest(element(HTML, "<script>", "</script>")),
    style: digest(element(HTML, "<style>", "</style>")),
});

impl Page {
    /// The one page there is.
    pub(crate) fn get() -> &'static Self {
        &PAGE
    }

    /// The page for a browser that fetches its pictures from the origin `pictures`, or 304 where the browser has it.
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

    /// Nothing runs but the page's own script, and nothing is spoken to but the API and the bucket.
    fn policy(&self, pictures: &str) -> String {
        let Self { script, style, .. } = self;
        format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data: {pictures}; \
             connect-src 'self' {pictures}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        )
    }
}

/// The content of the page's only element of its kind, whose digest the policy names.
fn element<'a>(html: &'a str, open: &str, close: &str) -> &'a str {
    let content = html.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    content.expect("the page has one such element").0
}
