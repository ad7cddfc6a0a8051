//! Encodings: what a caller takes.

use http::{HeaderMap, header};

/// Whether whoever sent these headers takes a gzip body.
#[must_use]
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    for choice in lines.flat_map(|line| line.split(',')) {
        let (name, weight) = choice.split_once(';').unwrap_or((choice, ""));
        let taken = !is_zero(weight);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return taken,
            "*" => any = taken,
            _ => {}
        }
    }
    any
}

/// Whether a weight such as `q=0.0` refuses.
fn is_zero(weight: &str) -> bool {
    let weight = weight.trim();
    let value = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="));
    value.is_some_and(|value| value.parse::<f32>() == Ok(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_by_name_or_by_star_unless_it_is_refused() {
        let takes = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (header::ACCEPT_ENCODING, http::HeaderValue::from_static(line)));
            takes_gzip(&lines.collect())
        };
        let taken = [&["gzip"][..], &["zstd, GZIP;q=0.5"], &["br", "gzip"], &["*"], &["*;q=0, gzip"], &["gzip;q=x"]];
        assert!(taken.into_iter().all(takes));
        let refused = [&[][..], &[""], &["zstd"], &["gzip;q=0, *"], &["gzip; q=0.000"], &["*;q=0"], &["gzipped"]];
        assert!(!refused.into_iter().any(takes));
    }
}
