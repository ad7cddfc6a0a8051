//! The web page at `/`: one document that holds no data and needs nothing from anywhere else.
//!
//! Its script asks the API with the token that a person gives it, as the command line does. What it may do beyond that
//! the browser is told to refuse: the policy names the script and the style by their digests, and nothing else.

use axum::response::{IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use sha2::{Digest as _, Sha256};

/// The page as it is served.
#[derive(Debug, Clone)]
pub struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Page {
    /// Puts the page together: style and script, without what only their readers need, inside of the document.
    #[must_use]
    pub fn new() -> Self {
        let style = squeezed(&bare(include_str!("web/page.css")));
        let script = [include_str!("web/asking.js"), include_str!("web/showing.js")].map(bare).concat();
        let html = bare(include_str!("web/page.html")).replace("{{style}}", &style).replace("{{script}}", &script);
        let digest = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            digest(&script),
            digest(&style)
        );
        // Base64 and plain words are good in a header; without a policy nothing would be worth serving.
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { html: html.into(), policy }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let plain = |name: HeaderName, value: &'static str| (name, HeaderValue::from_static(value));
        let headers = [
            plain(header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, self.policy),
            plain(header::CACHE_CONTROL, "no-store"),
            plain(header::REFERRER_POLICY, "no-referrer"),
            plain(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            plain(header::X_FRAME_OPTIONS, "DENY"),
            plain(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        ];
        (headers, self.html).into_response()
    }
}

/// Returns a text without indentation, blank lines and lines that are comments.
fn bare(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
        bare.push_str(line);
        bare.push('\n');
    }
    bare
}

/// Returns rules of style without the spaces that nothing needs.
fn squeezed(style: &str) -> String {
    let spaces = [(": ", ":"), ("; ", ";"), (", ", ","), (" {", "{"), ("{ ", "{"), (" }", "}"), (";}", "}")];
    spaces.into_iter().fold(style.to_owned(), |style, (wide, narrow)| style.replace(wide, narrow))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    /// Bytes that the page may have.
    const LIMIT: usize = 25 * 1024;

    /// Returns what stands between a tag and its end.
    fn inside<'a>(html: &'a str, tag: &str) -> &'a str {
        let (_, rest) = html.split_once(&format!("<{tag}>")).expect("it begins");
        rest.split_once(&format!("</{tag}>")).expect("it ends").0
    }

    /// S4-29.
    #[tokio::test]
    async fn page_is_small_and_needs_nothing_from_elsewhere() {
        let answer = Page::new().into_response();
        assert_eq!(answer.status(), StatusCode::OK);
        let headers = answer.headers().clone();
        let html = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let html = std::str::from_utf8(&html).expect("text");
        assert!(html.len() <= LIMIT, "{} bytes, the limit is {LIMIT}", html.len());
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"), "{html}");
        assert!(!html.contains("{{"), "something was not put in");
        for elsewhere in ["http:", "https:", "\"//", "'//", "src=", "@import", "url(", "import(", "<link", "<base"] {
            assert!(!html.contains(elsewhere), "{elsewhere}");
        }
        // What the API says becomes text, never markup and never code; the token never becomes part of an address.
        for markup in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "srcdoc",
            "setAttribute",
        ] {
            assert!(!html.contains(markup), "{markup}");
        }
        assert!(!html.contains("localStorage") && !html.contains("document.cookie") && html.contains("sessionStorage"));
        assert!(!html.contains(" style=") && !html.contains(" onclick="), "the policy would refuse it");

        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
        let digest = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        for (directive, value) in [
            ("default-src", "'none'"),
            ("script-src", &digest(inside(html, "script"))),
            ("style-src", &digest(inside(html, "style"))),
            ("connect-src", "'self'"),
            ("frame-ancestors", "'none'"),
            ("form-action", "'none'"),
            ("base-uri", "'none'"),
        ] {
            assert!(policy.split("; ").any(|part| part == format!("{directive} {value}")), "{directive}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
    }

    #[test]
    fn only_what_readers_need_is_left_out() {
        assert_eq!(bare("\n  // why\n  a('//'); // b\n\n\tc\n"), "a('//'); // b\nc\n");
        assert_eq!(squeezed("a b, i { color: red; margin: 0 1px; }"), "a b,i{color:red;margin:0 1px}");
    }
}
