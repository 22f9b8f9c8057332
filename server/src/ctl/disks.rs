//! Disks in the text of `deployctl`.
//!
//! Owns: the line about a disk, and the picture of a disk check. Does not own: what was
//! found; targets say it, and may say anything.

use serde_json::Value;
use wire::size::bytes;
use wire::{DiskCheck, DiskCheckEntry, DiskInfo};

/// Columns of a picture.
const COLUMNS: u64 = 60;
/// Partitions that are drawn; more are only listed.
const DRAWN: usize = 30;

/// One line about a disk.
pub fn line(disk: &DiskInfo) -> String {
    let mut text = format!(
        "{}: {}  {}  {}",
        disk.number,
        disk.path,
        bytes(disk.size_bytes),
        disk.bus
    );
    if !disk.paths.is_empty() {
        text += &format!(" ({} paths)", disk.paths.len());
    }
    text += &format!("  {}", disk.model);
    text += match disk.serial.as_str() {
        "" => "  no serial number",
        _ => "  serial ",
    };
    text += &disk.serial;
    if !disk.wwn.is_empty() {
        text += &format!("  wwn {}", disk.wwn);
    }
    if disk.read_only {
        text += "  read-only";
    }
    text
}

/// Everything that a disk check found.
pub fn check(check: &DiskCheck) -> Vec<String> {
    check.disks.iter().flat_map(entry).collect()
}

fn entry(entry: &DiskCheckEntry) -> Vec<String> {
    let info = &entry.info;
    let mut lines = vec![format!("  {}", line(info))];
    for way in &info.paths {
        lines.push(format!(
            "     path {}  {}  {}",
            way.path, way.address, way.controller
        ));
    }
    if let Some(problem) = &entry.problem {
        lines.push(format!("     {}: {}", problem.code, problem.found));
    }
    if let Some(health) = &entry.health {
        lines.push(format!("     {}", health.sentence()));
    }
    let Some(map) = &entry.map else {
        return lines;
    };
    let table = match text(map, "table") {
        "gpt" => "GPT",
        "mbr" => "MBR",
        _ => "no partition table",
    };
    lines.push(format!(
        "     {table}, sectors of {}/{} bytes, {} used",
        info.sector_size,
        info.physical_sector_size,
        bytes(number(map, "used_bytes"))
    ));
    let parts = map.get("partitions").and_then(Value::as_array);
    let parts: &[Value] = parts.map_or(&[], Vec::as_slice);
    if let Some(picture) = picture(info.size_bytes, parts) {
        lines.push(format!("     {picture}"));
    }
    lines.extend(parts.iter().map(partition));
    lines
}

fn partition(part: &Value) -> String {
    let name = [text(part, "label"), text(part, "name")]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("-");
    let mut line = format!(
        "     {:>3}  {:>10}  {:8}  {:16}  used {:>10} ({})  {}",
        number(part, "number"),
        bytes(number(part, "size_bytes")),
        or_dash(text(part, "file_system")),
        name,
        bytes(number(part, "used_bytes")),
        text(part, "method"),
        text(part, "type_name"),
    );
    if part.get("hidden") == Some(&Value::Bool(true)) {
        line += "  hidden";
    }
    if !text(part, "guid").is_empty() {
        line += &format!("  {}", text(part, "guid"));
    }
    line
}

/// The partitions side by side, each as wide as it is large: its number, `#` for what is
/// used, `.` for what is not.
fn picture(disk_bytes: u64, parts: &[Value]) -> Option<String> {
    if disk_bytes == 0 || parts.is_empty() || parts.len() > DRAWN {
        return None;
    }
    let share = |part: u64, whole: u64, of: u64| {
        let columns = u128::from(part) * u128::from(of) / u128::from(whole.max(1));
        u64::try_from(columns).unwrap_or(of).min(of)
    };
    let drawn: Vec<String> = parts
        .iter()
        .map(|part| {
            let size = number(part, "size_bytes");
            let name = number(part, "number").to_string();
            let width = share(size, disk_bytes, COLUMNS).max(name.len() as u64 + 1);
            let room = width - name.len() as u64;
            let used = share(number(part, "used_bytes"), size, room);
            let repeat = |sign: &str, count: u64| sign.repeat(usize::try_from(count).unwrap_or(0));
            name + &repeat("#", used) + &repeat(".", room - used)
        })
        .collect();
    Some(format!("[{}]", drawn.join("|")))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::{check, picture};
    use serde_json::{Value, json};
    use wire::{DiskCheck, DiskCheckEntry, DiskInfo};

    fn part(number: u64, size: u64, used: u64) -> Value {
        json!({
            "number": number, "size_bytes": size, "used_bytes": used, "file_system": "ext4",
            "label": "root", "method": "used", "type_name": "Linux filesystem", "guid": "AB",
            "hidden": number == 2,
        })
    }

    #[test]
    fn partitions_are_drawn_as_large_as_they_are() {
        let parts = [part(1, 10, 5), part(2, 50, 50), part(10, 0, 0)];
        assert_eq!(
            picture(100, &parts).unwrap(),
            "[1##...|2#############################|10.]"
        );
        // What a target says need not be true.
        let lies = [
            part(u64::MAX, u64::MAX, u64::MAX),
            json!(null),
            json!({"number": -1}),
        ];
        assert!(picture(1, &lies).unwrap().len() < 200);
        assert_eq!(picture(0, &lies), None);
        assert_eq!(picture(9, &[]), None);
    }

    #[test]
    fn a_check_tells_all_that_is_known() {
        let entry = DiskCheckEntry {
            info: DiskInfo {
                path: "/dev/sda".into(),
                size_bytes: 100,
                sector_size: 512,
                physical_sector_size: 4096,
                model: "Disk".into(),
                serial: "S1".into(),
                bus: "sata".into(),
                ..DiskInfo::default()
            },
            map: Some(json!({
                "table": "gpt", "used_bytes": 55, "partitions": [part(2, 60, 50)],
            })),
            problem: None,
            health: None,
        };
        let lines = check(&DiskCheck { disks: vec![entry] });
        assert_eq!(
            lines.join("\n"),
            "  0: /dev/sda  100 bytes  sata  Disk  serial S1\n     \
             GPT, sectors of 512/4096 bytes, 55 bytes used\n     \
             [2#############################......]\n       \
             2    60 bytes  ext4      root              used   50 bytes (used)  \
             Linux filesystem  hidden  AB"
        );
    }
}
