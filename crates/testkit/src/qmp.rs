//! QEMU's machine protocol, as far as tests need it.
//!
//! Owns: the handshake and single commands. Does not own: the machine (`machine`).

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// A monitor that does not answer must not hang a test.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to a machine's monitor.
#[derive(Debug)]
pub struct Monitor {
    reader: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects and leaves the negotiation mode.
    ///
    /// # Errors
    /// The socket is gone, or what answers is no monitor.
    pub fn connect(socket: &Path) -> io::Result<Monitor> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Monitor {
            reader: BufReader::new(stream),
        };
        monitor.message()?; // the greeting
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Runs one command and returns what it returns.
    ///
    /// # Errors
    /// The monitor's own error text, or a broken connection.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.reader
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())?;
        loop {
            let message = self.message()?;
            if let Some(value) = message.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = message.get("error") {
                return Err(io::Error::other(format!("monitor: {command}: {error}")));
            }
            // Anything else is an event.
        }
    }

    /// Writes the screen to a PNG file.
    ///
    /// # Errors
    /// As [`Monitor::execute`].
    pub fn screendump(&mut self, png: &Path) -> io::Result<()> {
        let arguments = json!({"filename": png.display().to_string(), "format": "png"});
        self.execute("screendump", &arguments).map(|_| ())
    }

    fn message(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the monitor closed the connection",
            ));
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}
