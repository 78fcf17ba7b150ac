//! Cursors of lists, which callers can store but not forge.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How many bytes of the MAC are kept: 128 bits cannot be guessed.
const CODE_BYTES: usize = 16;

/// Seals cursors and opens them.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey")
    }
}

impl CursorKey {
    /// Derives the key from a secret.
    pub fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// A cursor for the position `place` in the list `scope`.
    pub fn seal(&self, scope: &[&str], place: &str) -> String {
        let code = self.mac(scope, place).finalize().into_bytes();
        base64_simd::URL_SAFE_NO_PAD.encode_to_string([&code[..CODE_BYTES], place.as_bytes()].concat())
    }

    /// The position that a cursor stands for; `None` if it was not sealed here or belongs to another list.
    pub fn open(&self, scope: &[&str], cursor: &str) -> Option<String> {
        let bytes = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(cursor).ok()?;
        let (code, place) = bytes.split_at_checked(CODE_BYTES)?;
        let place = std::str::from_utf8(place).ok()?;
        self.mac(scope, place).verify_truncated_left(code).ok()?;
        Some(place.to_owned())
    }

    /// Includes the lengths, so that different texts never have the same encoding.
    fn mac(&self, scope: &[&str], place: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for text in scope.iter().chain([&place]) {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_only_the_list_that_it_was_made_for() {
        let key = CursorKey::new("secret");
        let cursor = key.seal(&["alice", "failed"], "1795505705713");
        assert_eq!(key.open(&["alice", "failed"], &cursor).as_deref(), Some("1795505705713"));
        for scope in [&["bob", "failed"][..], &["alice", ""], &["alice"], &["alicefailed"]] {
            assert_eq!(key.open(scope, &cursor), None, "{scope:?}");
        }
        assert_eq!(CursorKey::new("other").open(&["alice", "failed"], &cursor), None);
        for i in 0..cursor.len() {
            let mut forged = cursor.clone().into_bytes();
            forged[i] = if forged[i] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("still ASCII");
            assert_eq!(key.open(&["alice", "failed"], &forged), None, "{forged}");
        }
        for cursor in ["", "A", "AAAA", "=", "é"] {
            assert_eq!(key.open(&["alice", "failed"], cursor), None);
        }
    }
}
