use std::io::{self, Read};

use sha2::{Digest, Sha256};
use shared::text::hex;

/// Reads to the end, and calls `each` with every piece. Returns the number of bytes, and their SHA-256 in hexadecimal digits.
pub(crate) fn digest(
    mut reader: impl Read,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, String)> {
    let (mut bytes, mut digest, mut buffer) = (0, Sha256::new(), vec![0; 64 * 1024]);
    loop {
        let piece = match reader.read(&mut buffer)? {
            0 => return Ok((bytes, hex(&digest.finalize()))),
            read => &buffer[..read],
        };
        bytes += piece.len() as u64;
        digest.update(piece);
        each(piece)?;
    }
}
