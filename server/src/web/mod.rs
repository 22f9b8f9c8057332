//! The web page.
//!
//! Owns: the page and the headers that keep it harmless. Does not own: its data
//! (`/api`).

use axum::http::header;
use axum::response::{Html, IntoResponse};

const PAGE: &str = include_str!("index.html");

/// Nothing from elsewhere, no framing, no forms to elsewhere: a name with markup in it
/// could do nothing even if it were not escaped.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page, one file with everything in it.
pub async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(PAGE))
}

#[cfg(test)]
mod tests {
    use super::PAGE;

    #[test]
    fn the_page_never_makes_markup_from_text_and_loads_nothing() {
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "http://",
            "https://",
            "src=",
        ] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}
