//! What the scripts say, and what no name can make them say.

use super::{
    MAX_LINE, first_stage_script, grub_script, grub_try_again_script, harmless, ipxe_script,
    kernel_arguments, quoted, try_again_script,
};
use crate::netboot::config::BootConfig;
use crate::netboot::config::tests::sample;
use crate::netboot::decide::{BootDecision, LocalBoot};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use wire::{Code, DiskState, Report};

fn config() -> BootConfig {
    sample(std::path::Path::new("/srv/pxe")).boot_config()
}

fn local(how: LocalBoot) -> String {
    let why = "pc-17".to_owned();
    ipxe_script(&BootDecision::LocalDisk { why, how }, &config())
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
        local(LocalBoot::Auto),
        local(LocalBoot::Search),
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
fn a_machine_can_have_its_own_way_to_its_disk() {
    let last = |script: String| script.lines().last().unwrap().to_owned();
    assert_eq!(last(local(LocalBoot::Exit)), "exit 1");
    assert_eq!(last(local(LocalBoot::ExitOk)), "exit 0");
    for way in [LocalBoot::Exit, LocalBoot::ExitOk] {
        assert!(!local(way).contains("sanboot"), "{way:?}");
    }
    let search = local(LocalBoot::Search);
    let chain = "\nchain http://10.99.0.1:26500/boot/files/local-disk.efi ||\n";
    assert!(search.contains(chain), "{search}");
    for way in LocalBoot::ALL {
        assert!(local(way).starts_with("#!ipxe\n") && !local(way).contains("{{"));
        assert_eq!(LocalBoot::parse(way.as_str()), way);
    }
    assert_eq!(LocalBoot::parse("unknown"), LocalBoot::Auto);
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

#[test]
fn grub_gets_the_same_from_scripts_of_its_own() {
    let deploy = BootDecision::DeployOs {
        why: "backup of pc-17".to_owned(),
    };
    let config = BootConfig {
        extra_kernel_args: "a=b;c it's".to_owned(),
        ..config()
    };
    let script = grub_script(&deploy, &config);
    for line in [
        "set root=\"http,10.99.0.1:26500\"\n",
        "if linux /boot/files/vmlinuz 'deploy.server=https://10.99.0.1:26501' 'deploy.pin=00ff' ",
        " 'panic=30' 'a=b;c' 'it'\\''s'; then\n",
        "if initrd /boot/files/initramfs.img; then\n",
    ] {
        assert!(script.contains(line), "{line} in {script}");
    }
    assert!(
        !script.contains("initrd="),
        "only iPXE wants that: {script}"
    );
    let local = |how| {
        let why = "x".to_owned();
        grub_script(&BootDecision::LocalDisk { why, how }, &config)
    };
    assert!(local(LocalBoot::Auto).contains("chainloader \"$file\""));
    assert!(local(LocalBoot::ExitOk).ends_with("\nexit\n"));
    let report = Report::new(
        Code::MachineAmbiguous,
        "a\"; reboot",
        DiskState::NotInvolved,
    );
    let refused = grub_script(&BootDecision::Refused(report), &config);
    assert!(
        refused.contains("echo \"found:  a?? reboot\"\n"),
        "{refused}"
    );
    for script in [
        script,
        local(LocalBoot::Auto),
        refused,
        grub_try_again_script(&config),
    ] {
        assert!(!script.contains("{{") && !script.contains("}}"), "{script}");
    }
    assert_eq!(quoted("a b"), "'a b'");
}

proptest! {
    #[test]
    fn no_name_changes_the_number_of_lines_or_commands(name in any::<String>()) {
        let plain = ipxe_script(&BootDecision::DeployOs { why: "x".to_owned() }, &config());
        let grub = grub_script(&BootDecision::DeployOs { why: name.clone() }, &config());
        let named = ipxe_script(&BootDecision::DeployOs { why: name }, &config());
        prop_assert_eq!(plain.lines().count(), named.lines().count());
        for sign in ["||", "&&", "${", ";", "{{"] {
            prop_assert_eq!(plain.matches(sign).count(), named.matches(sign).count());
        }
        prop_assert!(named.is_ascii());
        let plain = grub_script(&BootDecision::DeployOs { why: "x".to_owned() }, &config());
        for sign in ["\"", "$", ";", "\n", "\\"] {
            prop_assert_eq!(plain.matches(sign).count(), grub.matches(sign).count());
        }
    }
}
