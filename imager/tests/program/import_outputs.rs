//! `imager import` where the new image is written beside, or in the place of, what is read.
//!
//! Owns: that a folder takes its own image, and that no file that is read is emptied or
//! replaced. Does not own: the same of other commands (`export`).

use crate::disks::folder;
use crate::imager;
use crate::import_clonezilla::{mbr, save};
use std::fs;

#[test]
fn a_folder_takes_the_image_of_itself() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "none");
    let image = saved.join("pc1.image");
    let partial = saved.join("pc1.image.partial");
    imager!["import", "-q", "--json", saved, image].ok();
    assert!(!partial.exists());
    // Both what it made before and what a killed run left there are no part of the source.
    fs::write(&partial, b"left").unwrap();
    imager!["import", "-q", "--json", saved, image].refused("image-exists");
    imager!["import", "-q", "--json", "--overwrite", saved, image].ok();
    assert!(!partial.exists());
    imager!["verify", "-q", image].ok();
}
