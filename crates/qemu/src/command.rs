//! The command line of a VM's QEMU: pure, and the same for cold starts, templates and restores.
//!
//! A saved memory image only fits a QEMU with the same devices at the same addresses, so the set
//! is fixed here and the things that differ between servers (data disk, network card) are
//! hot-plugged into root ports that are empty at first.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::files::RunDir;

/// The machine type; versioned, so that memory saved by one host fits another's QEMU.
pub const DEFAULT_MACHINE: &str = "pc-q35-10.0";
/// The serial number by which the guest finds its root file system.
pub const ROOT_SERIAL: &str = "undine-root";
/// The serial number by which the guest finds its data disk.
pub const DATA_SERIAL: &str = "undine-data";
/// The name of the guest agent's virtio-serial port.
pub const AGENT_PORT: &str = "undine.agent";
/// The root port that the data disk is hot-plugged into (PCI 00:10.0, so the disk's bus is fixed).
pub const DATA_ROOT_PORT: &str = "port0";
/// The root port that the network card is hot-plugged into (PCI 00:11.0).
pub const NIC_ROOT_PORT: &str = "port1";
/// Root ports in all; those behind the first two are kept for what later needs a place.
const ROOT_PORTS: u8 = 4;

/// How guest code is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation; slow, but runs anywhere.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// The hardware that the guest sees; part of a template's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub vcpus: u16,
    /// Versioned machine type, for example [`DEFAULT_MACHINE`].
    pub machine: String,
    /// A named processor model; `host` and `max` are refused.
    pub cpu: String,
    /// How guest code is executed.
    pub accel: Accel,
    /// Translation cache in MiB; used with [`Accel::Tcg`] only.
    pub tb_size_mib: u32,
}

/// What the guest boots from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Uncompressed kernel with a PVH entry.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initrd: PathBuf,
    /// The root file system's image; read-only, shared by all VMs of a host.
    pub root_image: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
}

/// Everything that a command line is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// What process lists show.
    pub name: String,
    /// The server's identity; checked when a running VM is adopted.
    pub uuid: Uuid,
    /// The hardware.
    pub shape: Shape,
    /// The image.
    pub boot: Boot,
    /// Sockets and logs.
    pub run_dir: RunDir,
}

/// What a new QEMU does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Boots the kernel.
    Boot,
    /// Holds still until continued.
    Paused,
    /// Waits for memory to arrive.
    Incoming,
}

/// Why a configuration cannot become a command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A path or name is not UTF-8 or holds a control character.
    #[error("{what} holds characters that QEMU's options cannot carry")]
    Characters {
        /// Which one.
        what: &'static str,
    },
    /// A processor model whose features differ between hosts.
    #[error("the processor model {cpu:?} differs between hosts; name a fixed one")]
    FloatingCpu {
        /// The model.
        cpu: String,
    },
    /// A machine type whose meaning changes with QEMU.
    #[error("the machine type {machine:?} names no version; use one like {DEFAULT_MACHINE}")]
    FloatingMachine {
        /// The type.
        machine: String,
    },
    /// No processor or no memory.
    #[error("a server needs at least one processor and some memory")]
    NoHardware,
}

/// Builds QEMU's arguments (without the program itself).
pub fn arguments(config: &VmConfig, begin: Begin) -> Result<Vec<String>, ConfigError> {
    check_shape(&config.shape)?;
    let mut args = Args::default();
    machine(&mut args, config)?;
    monitors_and_logs(&mut args, &config.run_dir)?;
    boot(&mut args, &config.boot)?;
    devices(&mut args, &config.run_dir)?;
    match begin {
        Begin::Boot => {}
        Begin::Paused => args.flag("-S"),
        Begin::Incoming => args.pair("-incoming", "defer"),
    }
    Ok(args.0)
}

fn check_shape(shape: &Shape) -> Result<(), ConfigError> {
    let cpu = shape.cpu.split(',').next().unwrap_or_default();
    if cpu.is_empty() || matches!(cpu, "host" | "max") {
        return Err(ConfigError::FloatingCpu {
            cpu: shape.cpu.clone(),
        });
    }
    let version = shape.machine.strip_prefix("pc-q35-").unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if !version.starts_with(|c: char| c.is_ascii_digit()) || !version.chars().all(plain) {
        return Err(ConfigError::FloatingMachine {
            machine: shape.machine.clone(),
        });
    }
    match (shape.vcpus, shape.memory_mib) {
        (0, _) | (_, 0) => Err(ConfigError::NoHardware),
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.to_owned());
        self.0.push(value.into());
    }
}

fn machine(args: &mut Args, config: &VmConfig) -> Result<(), ConfigError> {
    let Shape {
        memory_mib,
        vcpus,
        machine,
        cpu,
        accel,
        tb_size_mib,
    } = &config.shape;
    args.pair(
        "-name",
        format!("{},debug-threads=on", escaped(&config.name, "the name")?),
    );
    args.pair("-uuid", config.uuid.to_string());
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.pair("-display", "none");
    let deny = "obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    args.pair("-sandbox", format!("on,{deny}"));
    // A guest's reboot ends QEMU as well: the next start comes from a template, which is quicker,
    // and its devices are attached in the same order as after any other start.
    args.pair("-action", "reboot=shutdown,shutdown=poweroff");
    let without = "usb=off,vmport=off,sata=off,smbus=off,graphics=off,dump-guest-core=off";
    args.pair("-machine", format!("{machine},{without}"));
    args.pair(
        "-accel",
        match accel {
            Accel::Kvm => "kvm".to_owned(),
            Accel::Tcg => format!("tcg,tb-size={tb_size_mib}"),
        },
    );
    args.pair("-cpu", cpu);
    args.pair("-smp", format!("{vcpus},sockets=1,cores={vcpus},threads=1"));
    args.pair("-m", memory_mib.to_string());
    Ok(())
}

fn monitors_and_logs(args: &mut Args, run: &RunDir) -> Result<(), ConfigError> {
    args.pair("-pidfile", text(&run.pid_file(), "the run folder")?);
    for (id, path) in [("qmp", run.qmp()), ("guard", run.guard_qmp())] {
        args.pair("-chardev", server_socket(id, &path)?);
        args.pair("-mon", format!("chardev={id},mode=control"));
    }
    let console = escaped(text(&run.console(), "the run folder")?, "the run folder")?;
    args.pair(
        "-chardev",
        format!("file,id=console,path={console},append=on"),
    );
    args.pair("-serial", "chardev:console");
    args.pair("-msg", "timestamp=on");
    Ok(())
}

fn boot(args: &mut Args, boot: &Boot) -> Result<(), ConfigError> {
    args.pair("-kernel", text(&boot.kernel, "the kernel's path")?);
    args.pair(
        "-initrd",
        text(&boot.initrd, "the initial RAM file system's path")?,
    );
    args.pair("-append", boot.cmdline.clone());
    let filename = text(&boot.root_image, "the root image's path")?;
    let file = json!({"driver": "file", "node-name": "root-file", "filename": filename,
        "read-only": true});
    let raw = json!({"driver": "raw", "node-name": "root", "file": "root-file",
        "read-only": true});
    args.pair("-blockdev", file.to_string());
    args.pair("-blockdev", raw.to_string());
    Ok(())
}

fn devices(args: &mut Args, run: &RunDir) -> Result<(), ConfigError> {
    let mut device = |properties: serde_json::Value| args.pair("-device", properties.to_string());
    for port in 0..ROOT_PORTS {
        device(
            json!({"driver": "pcie-root-port", "id": format!("port{port}"), "bus": "pcie.0",
            "addr": format!("{:x}.0", 0x10 + port), "chassis": port + 1}),
        );
    }
    device(
        json!({"driver": "virtio-blk-pci", "id": "root-disk", "bus": "pcie.0", "addr": "2.0",
        "drive": "root", "serial": ROOT_SERIAL, "disable-legacy": "on"}),
    );
    device(
        json!({"driver": "virtio-serial-pci", "id": "ports", "bus": "pcie.0", "addr": "3.0",
        "max_ports": 4, "disable-legacy": "on"}),
    );
    args.pair("-chardev", server_socket("agent", &run.agent())?);
    let port = json!({"driver": "virtserialport", "id": "agent-port", "bus": "ports.0", "nr": 1,
        "chardev": "agent", "name": AGENT_PORT});
    args.pair("-device", port.to_string());
    args.pair("-object", "rng-random,id=entropy,filename=/dev/urandom");
    let rng = json!({"driver": "virtio-rng-pci", "id": "rng", "bus": "pcie.0", "addr": "4.0",
        "rng": "entropy", "disable-legacy": "on"});
    args.pair("-device", rng.to_string());
    let balloon = json!({"driver": "virtio-balloon-pci", "id": "balloon", "bus": "pcie.0",
        "addr": "5.0", "free-page-reporting": true, "deflate-on-oom": true,
        "disable-legacy": "on"});
    args.pair("-device", balloon.to_string());
    Ok(())
}

pub(crate) fn server_socket(id: &str, path: &Path) -> Result<String, ConfigError> {
    let path = escaped(text(path, "the run folder")?, "the run folder")?;
    Ok(format!("socket,id={id},path={path},server=on,wait=off"))
}

/// A path as text; options and JSON carry nothing else.
pub(crate) fn text<'a>(path: &'a Path, what: &'static str) -> Result<&'a str, ConfigError> {
    path.to_str().ok_or(ConfigError::Characters { what })
}

/// Doubles the commas, as values inside QEMU's comma-separated options need.
pub(crate) fn escaped(value: &str, what: &'static str) -> Result<String, ConfigError> {
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(ConfigError::Characters { what });
    }
    Ok(value.replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VmConfig {
        VmConfig {
            name: "web-1".into(),
            uuid: Uuid::from_u128(7),
            shape: Shape {
                memory_mib: 512,
                vcpus: 2,
                machine: DEFAULT_MACHINE.into(),
                cpu: "qemu64".into(),
                accel: Accel::Tcg,
                tb_size_mib: 32,
            },
            boot: Boot {
                kernel: "/images/a/vmlinux".into(),
                initrd: "/images/a/initrd".into(),
                root_image: "/images/a/root, final.squashfs".into(),
                cmdline: "console=ttyS0 quiet".into(),
            },
            run_dir: RunDir::new("/run/undine/a,b"),
        }
    }

    #[test]
    fn the_command_line_is_the_golden_one() {
        // Objects are compared as such: the order of their fields depends on the build.
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| json!(line));
        let golden: Vec<serde_json::Value> = include_str!("command_golden.txt")
            .lines()
            .map(read)
            .collect();
        let args = arguments(&config(), Begin::Boot).unwrap();
        assert_eq!(
            args.iter().map(|arg| read(arg)).collect::<Vec<_>>(),
            golden,
            "{args:#?}"
        );
    }

    #[test]
    fn a_restore_differs_from_a_cold_start_only_in_waiting_for_memory() {
        let cold = arguments(&config(), Begin::Boot).unwrap();
        let incoming = arguments(&config(), Begin::Incoming).unwrap();
        assert_eq!(incoming[..cold.len()], cold);
        assert_eq!(incoming[cold.len()..], ["-incoming", "defer"]);
        assert_eq!(
            arguments(&config(), Begin::Paused).unwrap()[cold.len()..],
            ["-S"]
        );
    }

    #[test]
    fn kvm_takes_no_translation_cache() {
        let mut config = config();
        config.shape.accel = Accel::Kvm;
        let args = arguments(&config, Begin::Boot).unwrap();
        assert!(args.windows(2).any(|pair| pair == ["-accel", "kvm"]));
    }

    #[test]
    fn hardware_that_differs_between_hosts_is_refused() {
        for cpu in ["host", "max", "host,-avx", ""] {
            let mut config = config();
            config.shape.cpu = cpu.into();
            let error = arguments(&config, Begin::Boot).unwrap_err();
            assert!(matches!(error, ConfigError::FloatingCpu { .. }), "{cpu}");
        }
        for machine in ["q35", "pc", "none", "pc-q35-10.0,accel=kvm"] {
            let mut config = config();
            config.shape.machine = machine.into();
            let error = arguments(&config, Begin::Boot).unwrap_err();
            assert!(
                matches!(error, ConfigError::FloatingMachine { .. }),
                "{machine}"
            );
        }
        let mut config = config();
        config.shape.vcpus = 0;
        assert_eq!(
            arguments(&config, Begin::Boot),
            Err(ConfigError::NoHardware)
        );
    }

    #[test]
    fn control_characters_in_names_are_refused() {
        let mut config = config();
        config.name = "a\nb".into();
        let error = arguments(&config, Begin::Boot).unwrap_err();
        assert_eq!(error, ConfigError::Characters { what: "the name" });
    }
}
