//! The mail server, and where DNS must lead.

use std::path::Path;

use anyhow::{Context as _, Result};
use undine_api::public::{MailEncryption, TryMail, UpdateDnsSettings, UpdateMailSettings};
use undine_client::new_key;

use super::{ANY, Context};
use crate::args::{DnsFlags, EncryptionName, MailFlags, Settings};

pub async fn run(context: &Context, command: Settings) -> Result<()> {
    match command {
        Settings::Mail(flags) => {
            let wish = changes(flags)?;
            let settings = if wish == UpdateMailSettings::default() {
                context.client.get_mail_settings().await?
            } else {
                context.client.update_mail_settings(ANY, &wish).await?
            };
            context.tell(&settings)
        }
        Settings::TryMail { to } => {
            let wish = TryMail { to };
            context.tell(&context.client.try_mail(&new_key(), &wish).await?)
        }
        Settings::Dns(flags) => {
            let wish = names(flags);
            let settings = if wish == UpdateDnsSettings::default() {
                context.client.get_dns_settings().await?
            } else {
                context.client.update_dns_settings(ANY, &wish).await?
            };
            context.tell(&settings)
        }
        Settings::Failover(_) => Ok(()),
    }
}

fn changes(flags: MailFlags) -> Result<UpdateMailSettings> {
    Ok(UpdateMailSettings {
        host: if flags.off {
            Some(String::new())
        } else {
            flags.host
        },
        port: flags.port,
        encryption: flags.encryption.map(|it| match it {
            EncryptionName::Tls => MailEncryption::Tls,
            EncryptionName::Starttls => MailEncryption::Starttls,
            EncryptionName::None => MailEncryption::None,
        }),
        user: flags.user,
        password: flags.password_file.as_deref().map(secret).transpose()?,
        from: flags.from,
    })
}

fn names(flags: DnsFlags) -> UpdateDnsSettings {
    let addresses = flags.edges || !flags.address.is_empty();
    let servers = flags.system || !flags.name_server.is_empty();
    UpdateDnsSettings {
        addresses: addresses.then_some(flags.address),
        name_servers: servers.then_some(flags.name_server),
    }
}

/// By a file: an argument could be read by anybody on the machine.
fn secret(file: &Path) -> Result<String> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(file).with_context(|| file.display().to_string())?
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
