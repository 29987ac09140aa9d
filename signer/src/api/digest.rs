//! `Content-Digest` (RFC 9530), with SHA-256: as a header, or as a trailer where the sender knows the
//! digest at the end only.

use aws_lc_rs::digest::{Context, SHA256};
use axum::http::HeaderMap;

/// The header's name, in lower case.
pub const CONTENT_DIGEST: &str = "content-digest";

/// Hashes a body.
pub struct Hasher(Context);

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Takes more.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }

    /// The digest.
    pub fn finish(self) -> Sha256 {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Sha256(digest)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// A body's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The field's value.
    pub fn field(&self) -> String {
        format!("sha-256=:{}:", data_encoding::BASE64.encode(&self.0))
    }

    /// What the fields say, if they say anything. Digests of other algorithms are refused where there
    /// is none that is checked here: whoever sends one wants it checked.
    pub fn stated(fields: &HeaderMap) -> Result<Option<Self>, String> {
        let mut stated = None;
        let mut others = false;
        for value in fields.get_all(CONTENT_DIGEST) {
            let value = value.to_str().map_err(|_| wrong("<not ASCII>"))?;
            for member in value.split(',').map(str::trim) {
                let Some(digest) = member.strip_prefix("sha-256=") else {
                    others = true;
                    continue;
                };
                let octets = digest
                    .strip_prefix(':')
                    .and_then(|digest| digest.strip_suffix(':'))
                    .and_then(|digest| data_encoding::BASE64.decode(digest.as_bytes()).ok())
                    .and_then(|octets| octets.try_into().ok());
                stated = Some(Self(octets.ok_or_else(|| wrong(member))?));
            }
        }
        if others && stated.is_none() {
            return Err(wrong("another algorithm"));
        }
        Ok(stated)
    }
}

fn wrong(found: &str) -> String {
    format!("Content-Digest is {found}; expected sha-256=:BASE64: (RFC 9530)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_are_written() {
        let digest = Hasher::new().finish();
        let empty = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        assert_eq!(digest.field(), empty);
        let stated = |values: &[&str]| {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(CONTENT_DIGEST, value.parse().expect("a value"));
            }
            Sha256::stated(&fields)
        };
        assert_eq!(stated(&[]), Ok(None));
        assert_eq!(stated(&[empty]), Ok(Some(digest)));
        assert_eq!(stated(&["sha-512=:eA==:, ", empty]), Ok(Some(digest)));
        for bad in ["sha-512=:eA==:", "sha-256=:eA==:", "sha-256=eA==", "sha-256=::"] {
            assert!(stated(&[bad]).expect_err(bad).contains("expected sha-256"), "{bad}");
        }
    }
}
