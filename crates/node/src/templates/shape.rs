//! What a server of some shape boots here, and the key of the template for it.

use undine_api::node::{StartSpec, TemplateWish};
use undine_model::Bytes;
use undine_qemu::accel::Accel;
use undine_qemu::command::{Boot, Shape};
use undine_qemu::template::TemplateKey;

use crate::host::Host;
use crate::images::Images;

/// QEMU's translated code at most, MiB; only used under emulation, and only as far as it is filled.
/// When it is full, all of it is thrown away and translated again: two starts of PHP and MariaDB
/// filled 64 MiB up to ten times.
pub const TRANSLATIONS_MIB: u32 = 256;

/// An image on some hardware.
pub struct Wanted<'a> {
    /// The image's hash.
    pub image_hash: &'a str,
    /// Memory.
    pub memory: Bytes,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Versioned machine type.
    pub machine: &'a str,
    /// CPU model.
    pub cpu_model: &'a str,
}

impl<'a> From<&'a StartSpec> for Wanted<'a> {
    fn from(spec: &'a StartSpec) -> Self {
        Self {
            image_hash: &spec.image.hash,
            memory: spec.memory,
            vcpus: spec.vcpus,
            machine: &spec.machine,
            cpu_model: &spec.cpu_model,
        }
    }
}

impl<'a> From<&'a TemplateWish> for Wanted<'a> {
    fn from(wish: &'a TemplateWish) -> Self {
        Self {
            image_hash: &wish.image_hash,
            memory: wish.memory,
            vcpus: wish.vcpus,
            machine: &wish.machine,
            cpu_model: &wish.cpu_model,
        }
    }
}

/// What it boots, and its template's key.
///
/// # Errors
/// In words: the image is not here, or the hardware cannot be.
pub async fn boot(
    host: &Host,
    images: &Images,
    wanted: Wanted<'_>,
) -> Result<(Boot, TemplateKey), String> {
    let image = images.local(wanted.image_hash);
    let image = image.ok_or("the image is not on this node")?;
    let accel = host
        .accel(&image.kernel, wanted.machine, wanted.cpu_model)
        .await;
    let cmdline = match accel {
        Accel::Tcg => format!("{} {}", image.manifest.cmdline, image.manifest.cmdline_tcg),
        Accel::Kvm => image.manifest.cmdline.clone(),
    };
    let too_large = |_| "the server's memory or processor count is out of range".to_owned();
    let shape = Shape {
        memory_mib: wanted.memory.whole_mib().try_into().map_err(too_large)?,
        vcpus: wanted.vcpus.try_into().map_err(too_large)?,
        machine: wanted.machine.to_owned(),
        cpu: wanted.cpu_model.to_owned(),
        accel,
        tb_size_mib: TRANSLATIONS_MIB,
    };
    let key = TemplateKey {
        image_hash: wanted.image_hash.to_owned(),
        shape,
        qemu_version: host.version().to_owned(),
    };
    let boot = Boot {
        kernel: image.kernel,
        initrd: image.initrd,
        root_image: image.root,
        cmdline: cmdline.trim().to_owned(),
    };
    Ok((boot, key))
}
