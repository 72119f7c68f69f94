//! Takes the uncompressed kernel out of Debian's `vmlinuz`, so that QEMU can start it by PVH
//! without running the kernel's own decompressor (most of a second under emulation).
//!
//! The image is a "bzImage" (Documentation/arch/x86/boot.rst) whose payload is LZ4 in its legacy
//! frame, followed by the uncompressed size.

use anyhow::{Context, Result, bail, ensure};

const LZ4_LEGACY_MAGIC: u32 = 0x184c_2102;
const SETUP_SECTORS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Returns the ELF kernel inside a `vmlinuz`.
pub fn extract(image: &[u8]) -> Result<Vec<u8>> {
    ensure!(
        image.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS"),
        "this is no Linux kernel image for x86"
    );
    let setup = match image[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup + 1) * 512 + word(image, PAYLOAD_OFFSET)?;
    let length = word(image, PAYLOAD_LENGTH)?;
    let payload = image
        .get(start..start + length)
        .context("the kernel image is cut off")?;
    let (stream, size) = payload
        .split_last_chunk::<4>()
        .context("the kernel's payload is empty")?;
    let kernel = decode_legacy(stream, u32::from_le_bytes(*size) as usize)?;
    ensure!(
        kernel.starts_with(b"\x7fELF"),
        "the kernel's payload is no ELF file"
    );
    Ok(kernel)
}

/// Decodes an LZ4 legacy frame: a magic number, then blocks with their compressed size.
fn decode_legacy(stream: &[u8], size: usize) -> Result<Vec<u8>> {
    if word(stream, 0)? != LZ4_LEGACY_MAGIC as usize {
        bail!("the kernel is not compressed with LZ4: this kernel package is not supported yet");
    }
    let mut out = Vec::with_capacity(size);
    let mut at = 4;
    while at < stream.len() {
        let length = word(stream, at)?;
        let block = stream
            .get(at + 4..at + 4 + length)
            .context("an LZ4 block is cut off")?;
        decode_block(block, &mut out)?;
        at += 4 + length;
    }
    ensure!(
        out.len() == size,
        "the kernel has {} bytes and should have {size}",
        out.len()
    );
    Ok(out)
}

/// Decodes one LZ4 block: literals and matches in turn. Matches never reach before the block.
fn decode_block(block: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let begin = out.len();
    let mut at = 0;
    while at < block.len() {
        let token = usize::from(byte(block, &mut at)?);
        let literals = length(token >> 4, block, &mut at)?;
        out.extend(
            block
                .get(at..at + literals)
                .context("LZ4 literals are cut off")?,
        );
        at += literals;
        if at == block.len() {
            break; // the last sequence has no match
        }
        let distance = usize::from(byte(block, &mut at)?) | usize::from(byte(block, &mut at)?) << 8;
        let matched = length(token & 15, block, &mut at)? + 4;
        ensure!(
            distance > 0 && distance <= out.len() - begin,
            "an LZ4 match points nowhere"
        );
        let from = out.len() - distance;
        // A match may overlap what it produces, so it is copied byte by byte.
        for index in from..from + matched {
            out.push(out[index]);
        }
    }
    Ok(())
}

fn length(nibble: usize, block: &[u8], at: &mut usize) -> Result<usize> {
    let mut total = nibble;
    if nibble == 15 {
        loop {
            let more = byte(block, at)?;
            total += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    Ok(total)
}

fn byte(block: &[u8], at: &mut usize) -> Result<u8> {
    let value = *block.get(*at).context("an LZ4 block is cut off")?;
    *at += 1;
    Ok(value)
}

fn word(bytes: &[u8], at: usize) -> Result<usize> {
    let four = bytes
        .get(at..at + 4)
        .context("the kernel image is cut off")?;
    Ok(u32::from_le_bytes(four.try_into().context("four bytes")?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_with(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SETUP_SECTORS] = 1;
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length);
        image.extend_from_slice(payload);
        image
    }

    fn payload(block: &[u8], size: u32) -> Vec<u8> {
        let mut bytes = LZ4_LEGACY_MAGIC.to_le_bytes().to_vec();
        bytes.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        bytes.extend(block);
        bytes.extend(size.to_le_bytes());
        bytes
    }

    #[test]
    fn literals_and_an_overlapping_match_are_decoded() {
        // Four literals "\x7fELF", then 4+5 bytes from distance 1, then one literal.
        let block = [0x45, 0x7f, b'E', b'L', b'F', 1, 0, 0x10, b'!'];
        let kernel = extract(&image_with(&payload(&block, 14))).unwrap();
        assert_eq!(kernel, b"\x7fELFFFFFFFFFF!");
    }

    #[test]
    fn a_kernel_that_is_cut_off_is_refused() {
        let block = [0x45, 0x7f, b'E', b'L', b'F', 1, 0, 0x10];
        assert!(extract(&image_with(&payload(&block, 14))).is_err());
        assert!(extract(&image_with(&payload(&block, 14))[..1030]).is_err());
        assert!(extract(b"no kernel").is_err());
    }

    #[test]
    fn another_compression_is_named_as_such() {
        let error = extract(&image_with(b"\xfd7zXZ\0 something")).unwrap_err();
        assert!(error.to_string().contains("LZ4"), "{error}");
    }
}
