//! The guests' peer on the host: hands out scripts, echoes data, remembers what VMs tell each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// A connection that stays silent this long is dropped.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// The most that is echoed on one connection.
const ECHO_LIMIT_BYTES: u64 = 64 << 20;

/// What the peer remembers.
#[derive(Debug, Default)]
struct State {
    boots: BTreeMap<String, usize>,
    told: BTreeSet<String>,
}

/// The peer, listening on the loopback address until the process ends.
#[derive(Debug)]
pub struct Peer {
    port: u16,
}

impl Peer {
    /// Starts listening. A VM's n-th request for a script gets the file `scripts/NAME-n`, or that of the last boot before that has one.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(scripts: &Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the guests' peer")?;
        let port = listener.local_addr()?.port();
        let (state, scripts) = (Arc::new(Mutex::new(State::default())), scripts.to_path_buf());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, scripts) = (Arc::clone(&state), scripts.clone());
                // A guest that resets breaks its connections: that is no failure of the test by itself.
                thread::spawn(move || answer(&stream, &state, &scripts));
            }
        });
        Ok(Self { port })
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// One connection: a line `REQUEST [WORD] NAME`, then data until the guest has no more.
fn answer(mut stream: &TcpStream, state: &Mutex<State>, scripts: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_LIMIT))?;
    stream.set_write_timeout(Some(SILENCE_LIMIT))?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.by_ref().take(256).read_line(&mut request)?;
    let words: Vec<&str> = request.split_whitespace().collect();
    match words[..] {
        ["script", name] => stream.write_all(&fs::read(next_script(state, scripts, name))?),
        ["tell", word, _] => {
            lock(state).told.insert(word.to_owned());
            Ok(())
        }
        ["told", word, _] => stream.write_all(if lock(state).told.contains(word) { b"yes\n" } else { b"no\n" }),
        ["echo", _] => {
            // All of it first: two ends that both write before they read would wait for each other.
            let mut data = Vec::new();
            reader.take(ECHO_LIMIT_BYTES).read_to_end(&mut data)?;
            stream.write_all(&data)
        }
        _ => Ok(()),
    }
}

fn next_script(state: &Mutex<State>, scripts: &Path, name: &str) -> PathBuf {
    let mut state = lock(state);
    let boots = state.boots.entry(name.to_owned()).or_default();
    *boots += 1;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let script = |boot: usize| scripts.join(format!("{name}-{boot}"));
    let found = (1..=*boots).rev().map(script).find(|path| is_name && path.is_file());
    found.unwrap_or_else(|| scripts.join("none"))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no thread panics with the state")
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        io::{Read, Write},
        net::{Shutdown, TcpStream},
    };

    use super::Peer;

    fn ask(peer: &Peer, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", peer.port())).expect("the peer listens");
        stream.write_all(request).expect("the peer reads");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the peer answers");
        answer
    }

    /// Would miss: a second boot that gets the first one's script and resets for ever.
    #[test]
    fn each_boot_has_its_script() {
        let folder = env::temp_dir().join(format!("bulkhead-peer-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("beta-1"), "first").expect("a file");
        fs::write(folder.join("beta-2"), "later").expect("a file");
        fs::write(folder.join("beta-4"), "last").expect("a file");
        let peer = Peer::start(&folder).expect("a peer");
        for expected in ["first", "later", "later", "last"] {
            assert_eq!(ask(&peer, b"script beta\n"), expected.as_bytes());
        }
        assert_eq!(ask(&peer, b"script ../beta\n"), b"");
        fs::remove_dir_all(folder).expect("the folder goes");
    }

    /// Would miss: data after the request line that is lost in a buffer, and a word that nobody told or that is forgotten.
    #[test]
    fn data_comes_back_whole_and_words_are_remembered() {
        let peer = Peer::start(&env::temp_dir()).expect("a peer");
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(ask(&peer, &[b"echo alpha\n".as_slice(), &data].concat()), data);
        assert_eq!(ask(&peer, b"told back alpha\n"), b"no\n");
        assert_eq!(ask(&peer, b"tell back beta\n"), b"");
        for _ in 0..2 {
            assert_eq!(ask(&peer, b"told back alpha\n"), b"yes\n");
        }
    }
}
