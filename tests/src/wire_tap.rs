//! A piece of network between a target and the server that can be cut, held and measured.
//!
//! Owns: passing bytes on, counting them, and doing so no longer. Does not own: what the
//! bytes mean (TLS, mostly).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Between two looks at a counter or at whether the way is free again.
const POLL: Duration = Duration::from_millis(5);

/// The way from targets to one server.
#[derive(Debug)]
pub struct WireTap {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    up: AtomicU64,
    down: AtomicU64,
    /// Connections are refused.
    cut: AtomicBool,
    /// Bytes stay where they are, and nobody is told.
    held: AtomicBool,
    /// Bytes per second of each connection; 0 is as fast as they come.
    pace: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl WireTap {
    /// A way to the server's port on loopback, through a port of its own.
    ///
    /// # Errors
    /// There is no port.
    pub fn to(port: u16) -> io::Result<WireTap> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let tap = Arc::clone(&shared);
        // Ends with the test program.
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if tap.cut.load(Ordering::SeqCst) {
                    continue;
                }
                // A server that is not there: the connection is closed, as by a host.
                if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                    tap.join(near, far);
                }
            }
        });
        Ok(WireTap { address, shared })
    }

    /// Where targets find the server.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Bytes from targets to the server so far.
    pub fn up(&self) -> u64 {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// Bytes from the server to targets so far.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    /// Breaks every connection, and lets none come about.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        for stream in self.shared.open().drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets no byte pass any more, without a word to anybody.
    pub fn hold(&self) {
        self.shared.held.store(true, Ordering::SeqCst);
    }

    /// Lets so many bytes per second pass, each connection and direction for itself.
    pub fn slow(&self, pace: u64) {
        self.shared.pace.store(pace, Ordering::SeqCst);
    }

    /// The way is free again, and fast.
    pub fn mend(&self) {
        self.slow(0);
        self.shared.cut.store(false, Ordering::SeqCst);
        self.shared.held.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both directions of a connection, until either end closes it.
    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let ends = [&near, &far].map(TcpStream::try_clone);
        let [Ok(near_too), Ok(far_too)] = ends else {
            return;
        };
        if let (Ok(near), Ok(far)) = (near.try_clone(), far.try_clone()) {
            self.open().extend([near, far]);
        }
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || up.pump(near, far, |shared| &shared.up));
        thread::spawn(move || down.pump(far_too, near_too, |shared| &shared.down));
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, count: fn(&Shared) -> &AtomicU64) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let pace = self.pace.load(Ordering::SeqCst);
            if pace > 0 {
                thread::sleep(Duration::from_secs_f64(len as f64 / pace as f64));
            }
            while self.held.load(Ordering::SeqCst) {
                thread::sleep(POLL);
            }
            count(self).fetch_add(len as u64, Ordering::SeqCst);
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
