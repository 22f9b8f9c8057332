//! iPXE boot scripts, made from the templates in `bootloader-cfg/`.
//!
//! Owns: completing the templates, and making values harmless in them. Does not own:
//! the decision what a machine boots.
//!
//! iPXE has no quoting: a value is safe in a line only if it brings no line break, no
//! `${`, and no word that separates commands. [`harmless`] sees to that for everything
//! that a user or the network can name.

use super::config::BootConfig;
use super::decide::BootDecision;

const FIRST_STAGE: &str = include_str!("../../../bootloader-cfg/boot.ipxe");
const DEPLOY_OS: &str = include_str!("../../../bootloader-cfg/deploy-os.ipxe");
const LOCAL_DISK: &str = include_str!("../../../bootloader-cfg/local-disk.ipxe");
const REFUSED: &str = include_str!("../../../bootloader-cfg/refused.ipxe");
const TRY_AGAIN: &str = include_str!("../../../bootloader-cfg/try-again.ipxe");
const LOCAL_DISK_PART: &str = include_str!("../../../bootloader-cfg/local-disk-part.ipxe");

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
        BootDecision::LocalDisk { why } => complete(LOCAL_DISK, config, &[("why", harmless(why))]),
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

/// The Deploy-OS's command line: where the server is, whose key it has, and consoles.
/// The last console is `/dev/console`, so the serial one gets the kernel's messages too.
pub fn kernel_arguments(config: &BootConfig) -> String {
    let mut words: Vec<String> = config
        .initrds
        .iter()
        .map(|name| format!("initrd={name}"))
        .collect();
    words.push(format!(
        "deploy.server=https://{}:{}",
        config.server_ip, config.data_port
    ));
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
    words.join(" ")
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
mod tests {
    use super::{
        MAX_LINE, first_stage_script, harmless, ipxe_script, kernel_arguments, try_again_script,
    };
    use crate::netboot::config::BootConfig;
    use crate::netboot::config::tests::sample;
    use crate::netboot::decide::BootDecision;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use wire::{Code, DiskState, Report};

    fn config() -> BootConfig {
        sample(std::path::Path::new("/srv/pxe")).boot_config()
    }

    fn all() -> Vec<String> {
        let why = || "pc-17".to_owned();
        let report = Report::new(
            Code::MachineAmbiguous,
            "two machines",
            DiskState::NotInvolved,
        );
        vec![
            first_stage_script(&config()),
            try_again_script(&config()),
            ipxe_script(&BootDecision::DeployOs { why: why() }, &config()),
            ipxe_script(&BootDecision::LocalDisk { why: why() }, &config()),
            ipxe_script(&BootDecision::Refused(report), &config()),
        ]
    }

    #[test]
    fn every_script_is_complete_and_ends_at_the_local_disk() {
        for script in all() {
            assert!(script.starts_with("#!ipxe\n"), "{script}");
            assert!(!script.contains("{{") && !script.contains("}}"), "{script}");
            assert!(
                script.contains("sanboot --no-describe --drive 0x80 || exit 1"),
                "{script}"
            );
            assert!(script.ends_with("\nexit 1\n"), "{script}");
            assert!(!script.contains("next-server"), "{script}");
        }
    }

    #[test]
    fn every_label_that_is_jumped_to_exists_once() {
        for script in all() {
            for target in script
                .split("goto ")
                .skip(1)
                .filter_map(|rest| rest.split_whitespace().next())
            {
                let label = format!(":{target}");
                assert_eq!(
                    script.lines().filter(|line| *line == label).count(),
                    1,
                    "{label} in {script}"
                );
            }
        }
    }

    #[test]
    fn the_first_stage_tells_who_the_machine_is() {
        let script = first_stage_script(&config());
        let url = "http://10.99.0.1:26500/boot/machine.ipxe?mac=${netX/mac}&mac=${net0/mac}";
        assert!(script.contains(url), "{script}");
        for field in [
            "&uuid=${uuid}",
            "&product=${product:uristring}",
            "&platform=${platform}",
        ] {
            assert!(script.contains(field), "{field}");
        }
    }

    #[test]
    fn the_deploy_os_gets_server_pin_and_consoles() {
        let script = ipxe_script(
            &BootDecision::DeployOs {
                why: "backup".to_owned(),
            },
            &config(),
        );
        let kernel = "kernel http://10.99.0.1:26500/boot/files/vmlinuz initrd=initramfs.img \
                      deploy.server=https://10.99.0.1:26501 deploy.pin=00ff deploy.signer=11ee \
                      console=tty0 console=ttyS0,115200 panic=30 || goto again\n";
        assert!(script.contains(kernel), "{script}");
        let initrd = "initrd --name initramfs.img http://10.99.0.1:26500/boot/files/initramfs.img || goto again\n";
        assert!(script.contains(initrd), "{script}");
    }

    #[test]
    fn extra_arguments_follow_and_an_empty_pin_is_left_out() {
        let config = BootConfig {
            pin: String::new(),
            signer: String::new(),
            extra_kernel_args: " quiet  lang=ja ".to_owned(),
            initrds: vec!["a.img".to_owned(), "b.img".to_owned()],
            ..config()
        };
        let arguments = kernel_arguments(&config);
        assert!(
            arguments.starts_with("initrd=a.img initrd=b.img deploy.server="),
            "{arguments}"
        );
        assert!(arguments.ends_with("panic=30 quiet lang=ja"), "{arguments}");
        assert!(!arguments.contains("deploy.pin"), "{arguments}");
        assert!(!arguments.contains("deploy.signer"), "{arguments}");
    }

    #[test]
    fn a_refusal_shows_code_and_what_was_found() {
        let report = Report::new(
            Code::MachineAmbiguous,
            "pc-17\n|| shell ${x}",
            DiskState::NotInvolved,
        );
        let script = ipxe_script(&BootDecision::Refused(report), &config());
        assert!(
            script.contains("echo machine-ambiguous: Network address"),
            "{script}"
        );
        assert!(script.contains("echo ?? shell ??x?"), "{script}");
    }

    #[test]
    fn names_cannot_bring_commands_in() {
        assert_eq!(harmless("pc\nshell"), "pc shell");
        assert_eq!(harmless("a || shell"), "a ?? shell");
        assert_eq!(
            harmless("a && b ; c # d ${net0/mac} {{local}}"),
            "a ?? b ? c ? d ??net0/mac? ??local??"
        );
        assert_eq!(harmless("日本"), "??");
        assert_eq!(harmless(&"x".repeat(1000)).len(), MAX_LINE);
    }

    proptest! {
        #[test]
        fn no_name_changes_the_number_of_lines_or_commands(name in any::<String>()) {
            let plain = ipxe_script(&BootDecision::DeployOs { why: "x".to_owned() }, &config());
            let named = ipxe_script(&BootDecision::DeployOs { why: name }, &config());
            prop_assert_eq!(plain.lines().count(), named.lines().count());
            for sign in ["||", "&&", "${", ";", "{{"] {
                prop_assert_eq!(plain.matches(sign).count(), named.matches(sign).count());
            }
            prop_assert!(named.is_ascii());
        }
    }
}
