//! Pictures that people hand in: PNG and WebP, small, and what they say they are. SVG is refused:
//! it may hold scripts and links.

use crate::refusal::{Refusal, Result};

/// The largest file.
pub const LARGEST: usize = 64 << 10;
/// The longest side, in points.
const SIDE: u32 = 1_024;

/// The kind of a picture that may be shown, by what is in it.
pub fn kind(bytes: &[u8]) -> Result<&'static str> {
    let no = |why: &str| Err(Refusal::invalid("logo", why));
    if bytes.is_empty() {
        return no("Choose a file.");
    }
    if bytes.len() > LARGEST {
        return no("The picture has more than 64 KiB.");
    }
    let (kind, size) = match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => ("image/png", png(bytes)),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => ("image/webp", webp(bytes)),
        _ => return no("The picture must be a PNG or a WebP."),
    };
    match size {
        Some((w, h)) if (1..=SIDE).contains(&w) && (1..=SIDE).contains(&h) => Ok(kind),
        Some(_) => no("The picture may be 1024 points wide and high at most."),
        None => no("The picture is damaged."),
    }
}

/// Width and height of a PNG: the first chunk says so.
fn png(bytes: &[u8]) -> Option<(u32, u32)> {
    if bytes.get(12..16)? != b"IHDR" {
        return None;
    }
    let number = |at: usize| {
        let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(four))
    };
    Some((number(16)?, number(20)?))
}

/// Width and height of a WebP: lossy, lossless or extended.
fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    let at = |n: usize| bytes.get(n).copied().map(u32::from);
    let three = |n: usize| Some(at(n)? | (at(n + 1)? << 8) | (at(n + 2)? << 16));
    match bytes.get(12..16)? {
        b"VP8X" => Some((three(24)? + 1, three(27)? + 1)),
        b"VP8L" => {
            let bits = at(21)? | (at(22)? << 8) | (at(23)? << 16) | (at(24)? << 24);
            Some(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1))
        }
        b"VP8 " => {
            let side = |n: usize| Some((at(n)? | (at(n + 1)? << 8)) & 0x3fff);
            Some((side(26)?, side(28)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes
    }

    #[test]
    fn only_small_pictures_of_two_kinds_are_taken() {
        assert_eq!(kind(&a_png(120, 40)).unwrap(), "image/png");
        let lossless = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x63\xc0\x09\x00";
        assert_eq!(kind(lossless).unwrap(), "image/webp");
        for wrong in [
            Vec::new(),
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>".to_vec(),
            b"GIF89a".to_vec(),
            a_png(0, 40),
            a_png(4_000, 40),
            b"\x89PNG\r\n\x1a\n".to_vec(),
            [a_png(1, 1), vec![0; LARGEST]].concat(),
        ] {
            assert!(kind(&wrong).is_err(), "{:?}", &wrong[..wrong.len().min(40)]);
        }
    }
}
