//! Boot scripts for iPXE and GRUB, made from the templates in `bootloader-cfg/`.
//!
//! Owns: completing the templates, and making values harmless in them. Does not own:
//! the decision what a machine boots.
//!
//! iPXE has no quoting: a value is safe in a line only if it brings no line break, no
//! `${`, and no word that separates commands. [`harmless`] sees to that for everything
//! that a user or the network can name.

use super::config::BootConfig;
use super::decide::{BootDecision, LocalBoot};

const FIRST_STAGE: &str = include_str!("../../../bootloader-cfg/boot.ipxe");
const DEPLOY_OS: &str = include_str!("../../../bootloader-cfg/deploy-os.ipxe");
const LOCAL_DISK: &str = include_str!("../../../bootloader-cfg/local-disk.ipxe");
const REFUSED: &str = include_str!("../../../bootloader-cfg/refused.ipxe");
const TRY_AGAIN: &str = include_str!("../../../bootloader-cfg/try-again.ipxe");
const LOCAL_DISK_PART: &str = include_str!("../../../bootloader-cfg/local-disk-part.ipxe");
const LOCAL_EXIT_PART: &str = include_str!("../../../bootloader-cfg/local-exit-part.ipxe");
const LOCAL_EXIT_OK_PART: &str = include_str!("../../../bootloader-cfg/local-exit-ok-part.ipxe");
const LOCAL_SEARCH_PART: &str = include_str!("../../../bootloader-cfg/local-search-part.ipxe");

const GRUB_DEPLOY_OS: &str = include_str!("../../../bootloader-cfg/deploy-os.grub");
const GRUB_LOCAL_DISK: &str = include_str!("../../../bootloader-cfg/local-disk-machine.grub");
const GRUB_REFUSED: &str = include_str!("../../../bootloader-cfg/refused.grub");
const GRUB_TRY_AGAIN: &str = include_str!("../../../bootloader-cfg/try-again.grub");
/// Looks for a boot loader on the disks; also embedded in `local-disk.efi`.
const GRUB_SEARCH: &str = include_str!("../../../bootloader-cfg/local-disk.grub");

/// Longest text of a user in one script line, in characters. iPXE's screen has 80.
const MAX_LINE: usize = 200;

/// The script that every machine fetches first: it says who the machine is and chains
/// to that made by [`ipxe_script`].
pub fn first_stage_script(config: &BootConfig) -> String {
    complete(FIRST_STAGE, config, &[])
}

/// The script for one machine.
pub fn ipxe_script(decision: &BootDecision, config: &BootConfig) -> String {
    match decision {
        BootDecision::DeployOs { why } => complete(
            DEPLOY_OS,
            config,
            &[
                ("why", harmless(why)),
                ("kernel", config.kernel.clone()),
                ("arguments", kernel_arguments(config)),
                ("initrds", initrd_lines(config)),
            ],
        ),
        BootDecision::LocalDisk { why, how } => {
            let way = match how {
                LocalBoot::Auto => LOCAL_DISK_PART.to_owned(),
                LocalBoot::Exit => LOCAL_EXIT_PART.to_owned(),
                LocalBoot::ExitOk => LOCAL_EXIT_OK_PART.to_owned(),
                LocalBoot::Search => {
                    let search = complete(LOCAL_SEARCH_PART, config, &[]);
                    format!("{search}{LOCAL_DISK_PART}")
                }
            };
            let values = [("why", harmless(why)), ("local", way.trim_end().to_owned())];
            complete(LOCAL_DISK, config, &values)
        }
        BootDecision::Refused(report) => {
            let text = report.to_string();
            let lines: Vec<String> = text
                .lines()
                .map(|line| format!("echo {}", harmless(line)))
                .collect();
            complete(REFUSED, config, &[("report", lines.join("\n"))])
        }
    }
}

/// The script for a machine that the server cannot answer in time.
pub fn try_again_script(config: &BootConfig) -> String {
    complete(TRY_AGAIN, config, &[])
}

/// The script for one machine that GRUB runs. Its words are quoted as in a shell.
pub fn grub_script(decision: &BootDecision, config: &BootConfig) -> String {
    let search = || ("local", GRUB_SEARCH.trim_end().to_owned());
    match decision {
        BootDecision::DeployOs { why } => {
            let arguments: Vec<String> = kernel_words(config).iter().map(|w| quoted(w)).collect();
            let initrds: Vec<String> = config
                .initrds
                .iter()
                .map(|name| format!("/boot/files/{name}"))
                .collect();
            let values = [
                ("why", harmless(why)),
                ("kernel", config.kernel.clone()),
                ("arguments", arguments.join(" ")),
                ("initrds", initrds.join(" ")),
            ];
            complete(GRUB_DEPLOY_OS, config, &values)
        }
        BootDecision::LocalDisk { why, how } => {
            let local = match how {
                LocalBoot::Auto | LocalBoot::Search => search(),
                LocalBoot::Exit | LocalBoot::ExitOk => ("local", "exit".to_owned()),
            };
            complete(GRUB_LOCAL_DISK, config, &[("why", harmless(why)), local])
        }
        BootDecision::Refused(report) => {
            let text = report.to_string();
            let lines: Vec<String> = text
                .lines()
                .map(|line| format!("echo \"{}\"", harmless(line)))
                .collect();
            complete(
                GRUB_REFUSED,
                config,
                &[("report", lines.join("\n")), search()],
            )
        }
    }
}

/// As [`try_again_script`], for GRUB.
pub fn grub_try_again_script(config: &BootConfig) -> String {
    complete(GRUB_TRY_AGAIN, config, &[])
}

/// A word that GRUB takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The Deploy-OS's command line for iPXE, which wants to know the initramfs by name.
pub fn kernel_arguments(config: &BootConfig) -> String {
    let initrds = config.initrds.iter().map(|name| format!("initrd={name}"));
    let words: Vec<String> = initrds.chain(kernel_words(config)).collect();
    words.join(" ")
}

/// The Deploy-OS's command line: where the server is, whose key it has, and consoles.
/// The last console is `/dev/console`, so the serial one gets the kernel's messages too.
fn kernel_words(config: &BootConfig) -> Vec<String> {
    let mut words = vec![format!(
        "deploy.server=https://{}:{}",
        config.server_ip, config.data_port
    )];
    if !config.pin.is_empty() {
        words.push(format!("deploy.pin={}", config.pin));
    }
    if !config.signer.is_empty() {
        words.push(format!("deploy.signer={}", config.signer));
    }
    words.extend(["console=tty0", "console=ttyS0,115200", "panic=30"].map(str::to_owned));
    words.extend(
        config
            .extra_kernel_args
            .split_ascii_whitespace()
            .map(str::to_owned),
    );
    words
}

fn initrd_lines(config: &BootConfig) -> String {
    let base = config.base_url();
    let line = |name: &String| format!("initrd --name {name} {base}/files/{name} || goto again");
    config
        .initrds
        .iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Makes a text safe inside a script line: printable ASCII that means nothing to iPXE
/// stays, everything else becomes `?`, and the length is limited.
pub fn harmless(text: &str) -> String {
    let safe = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => c,
        ' ' | '.' | ',' | ':' | '-' | '_' | '/' | '(' | ')' | '=' | '+' | '@' | '%' | '\''
        | '*' | '!' => c,
        '\t' | '\n' | '\r' => ' ',
        _ => '?',
    };
    text.trim().chars().take(MAX_LINE).map(safe).collect()
}

/// Replaces every `{{name}}` of a template. Values are not looked at again, so a value
/// cannot bring a placeholder in.
fn complete(template: &str, config: &BootConfig, values: &[(&str, String)]) -> String {
    let general = [
        ("base", config.base_url()),
        ("server", config.server_ip.to_string()),
        ("http_port", config.http_port.to_string()),
        ("local", LOCAL_DISK_PART.trim_end().to_owned()),
    ];
    let mut script = String::with_capacity(template.len() + 512);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, tail) = after.split_once("}}").unwrap_or((after, ""));
        script.push_str(before);
        let value = values
            .iter()
            .chain(&general)
            .find(|(known, _)| *known == name);
        debug_assert!(
            value.is_some(),
            "the template names an unknown value: {name}"
        );
        script.push_str(value.map_or("", |(_, value)| value));
        rest = tail;
    }
    script.push_str(rest);
    script
}

#[cfg(test)]
mod tests;
