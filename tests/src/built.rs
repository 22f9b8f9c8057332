//! What `build.sh` built, and where runs put their logs and caches.
//!
//! Owns: paths. A missing file is an error that says what to run: nothing is skipped.

use std::io;
use std::path::{Path, PathBuf};

use testkit::accel::{self, Accelerator};

/// The built programs and files.
#[derive(Debug, Clone)]
pub struct Built {
    out: PathBuf,
    cache: PathBuf,
}

impl Built {
    /// Looks for what `build.sh` leaves in `out/` (or `DEPLOY_OUT`).
    ///
    /// # Errors
    /// Something is missing: `build.sh` has to run first.
    pub fn find() -> io::Result<Built> {
        let out = folder("DEPLOY_OUT").unwrap_or_else(default_out);
        let cache = cache()?;
        for file in [
            "bin/imager",
            "bin/deployd",
            "bin/deployctl",
            "pxe/vmlinuz",
            "pxe/initramfs.img",
            "pxe/undionly.kpxe",
            "pxe/snponly.efi",
            "media/VERSION",
        ] {
            if !out.join(file).is_file() {
                return Err(missing(&out.join(file)));
            }
        }
        Ok(Built { out, cache })
    }

    /// One of our programs, as `deployd`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.out.join("bin").join(name)
    }

    /// The folder that is served to machines.
    pub fn pxe(&self) -> PathBuf {
        self.out.join("pxe")
    }

    /// What media are made of.
    pub fn kit(&self) -> PathBuf {
        self.out.join("media")
    }

    /// Where the logs of one test go; they stay after the run.
    pub fn logs(&self, test: &str) -> PathBuf {
        self.out.join("logs").join(test)
    }

    /// Caches that outlive the checkout.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// KVM where a guest really runs with it, else emulation.
    ///
    /// # Errors
    /// As [`accel::choose`].
    pub fn accelerator(&self) -> io::Result<Accelerator> {
        accel::choose(&self.cache, &self.pxe())
    }
}

/// The folder of caches that `build.sh` uses too.
///
/// # Errors
/// Nothing says where it is.
pub fn cache() -> io::Result<PathBuf> {
    folder("DEPLOY_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("deploy-os")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/deploy-os")))
        .ok_or_else(|| io::Error::other("neither DEPLOY_CACHE nor HOME is set"))
}

/// The folder of our programs: `DEPLOY_BIN`, or `bin` in what `build.sh` leaves.
///
/// # Errors
/// One of them is missing.
pub fn programs() -> io::Result<PathBuf> {
    let bin = folder("DEPLOY_BIN").unwrap_or_else(|| {
        let out = folder("DEPLOY_OUT").unwrap_or_else(default_out);
        out.join("bin")
    });
    for program in ["imager", "deployd", "deployctl"] {
        if !bin.join(program).is_file() {
            return Err(missing(&bin.join(program)));
        }
    }
    Ok(bin)
}

fn default_out() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).join("out")
}

fn missing(file: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} is missing: run ./build.sh first", file.display()),
    )
}

fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
