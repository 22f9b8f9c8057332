//! What only a real kernel shows: sector sizes of real disks, growing while mounted,
//! partitions in use, file systems after a power cut.
//!
//! Two guests with the Deploy-OS's own kernel, since emulated ones are slow to boot: the
//! first one's power is cut in the middle of its writes, the second one does all the rest.

use e2e::built::Built;
use e2e::guest::{End, Guest, claims, growth, sectors, unclean};

#[test]
fn a_real_kernel_agrees() {
    let built = Built::find().unwrap();
    let imager = built.program("imager");
    let accelerator = built.accelerator().unwrap();
    println!(
        "Guests with the kernel's own file systems, with {}",
        accelerator.name()
    );
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();

    let mut first = Guest::new("cut", folder);
    unclean::prepare(folder, &mut first);
    let cut = first.run(&built, End::PowerCut);
    let restored = unclean::there_and_back(&imager, folder, &cut);

    let mut second = Guest::new("all", folder);
    let sectors = sectors::prepare(folder, &mut second);
    let growing = growth::prepare(&imager, folder, &mut second);
    let claims = claims::prepare(&imager, folder, &mut second);
    unclean::replay(&restored, &mut second);
    let results = second.run(&built, End::Regular);
    unclean::check(&restored, &results);
    sectors::check(&sectors, &results);
    growth::check(&growing, &results);
    claims::check(&claims, &results);
}
