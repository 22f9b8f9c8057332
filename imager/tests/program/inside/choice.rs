//! Which partition and which file is meant, and what is said if it is not there.

use crate::disks::{self, folder};
use crate::imager;
use crate::run::USAGE;

#[test]
fn a_partition_is_named_where_several_can_be_looked_into() {
    let image = &disks::mbr().image;
    let found = imager!["ls", image].refused("partition-not-found").stderr;
    assert!(
        found.contains("1 (12.0 MiB, ext2") && found.contains("; 5 (16.0 MiB, ext4"),
        "{found}"
    );
    assert!(found.contains("--partition"), "{found}");
    imager!["ls", image, "--partition", "5"].ok();
    imager!["ls", image, "--partition", "9"].refused("partition-not-found");
    // Swap has no files.
    let said = imager!["ls", image, "--partition", "6"]
        .fails("file-unreadable", 1)
        .stderr;
    assert!(
        said.contains("partition 6: ") && said.contains("swap is not read"),
        "{said}"
    );
    imager!["ls", disks::bare().image].ok();
    imager!["ls", disks::noise().image].refused("partition-not-found");
}

#[test]
fn a_partition_that_the_image_does_not_hold() {
    let dir = folder();
    let image = dir.path().join("image");
    imager![
        "backup",
        "-q",
        "--partition",
        "1",
        disks::mbr().disk.path,
        image
    ]
    .ok();
    // The other one that could be looked into is only listed.
    imager!["ls", image].ok();
    imager!["ls", image, "--partition", "5"].refused("image-partial");
}

#[test]
fn paths_that_are_not_there() {
    let image = &disks::bare().image;
    for path in [
        "missing",
        "/file-0.bin/below",
        "directory-1/missing",
        "../missing",
    ] {
        imager!["ls", image, path].refused("file-not-found");
        imager!["cat", image, path].refused("file-not-found");
        let dir = folder();
        let out = dir.path().join("out");
        imager!["extract", "-q", "--json", image, "file-0.bin", path, out]
            .refused("file-not-found");
        assert!(!out.exists(), "something was made");
    }
    imager!["cat", image, "directory-1"].refused("file-not-found");
    assert_eq!(imager!["extract", image, "/"].exit, Some(USAGE));
    imager!["cat", "/nonexistent", "x"].refused("image-not-found");
    imager!["cat", disks::bare().disk.path, "x"].fails("image-damaged", 1);
}
