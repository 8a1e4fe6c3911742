use std::ffi::OsStr;

use super::*;

/// A cache in a folder of its own, which is removed at the end.
pub(crate) struct Scratch(pub(crate) Cache);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("pullback-cache-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&folder);
        Self(Cache { folder: Some(folder) })
    }

    fn folder(&self) -> &Path {
        self.0.folder().unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.folder());
    }
}

#[test]
fn what_was_written_is_read() {
    let scratch = Scratch::new("round-trip");
    let (one, other) = (Key::new(["source", "sm_80"]), Key::new(["source", "sm_90a"]));
    assert_eq!(scratch.0.read(one), None);
    scratch.0.write(one, b"one");
    scratch.0.write(other, &[]);
    assert_eq!(scratch.0.read(one).as_deref(), Some(b"one".as_slice()));
    assert_eq!(scratch.0.read(other).as_deref(), Some([].as_slice()));
    assert_eq!(scratch.files().len(), 2, "no temporary file is left");
}

#[test]
fn keys_differ_where_any_part_differs() {
    let keys = [vec!["ab", "c"], vec!["a", "bc"], vec!["abc"], vec!["ab", "c", ""], vec![]].map(Key::new);
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "{i}");
    }
}

#[test]
fn an_entry_that_is_not_whole_is_absent_and_written_again() {
    let scratch = Scratch::new("corrupt");
    let key = Key::new(["key"]);
    scratch.0.write(key, b"machine code");
    let path = scratch.folder().join(key.file());
    let whole = fs::read(&path).unwrap();
    for i in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[i] ^= 1;
        fs::write(&path, flipped).unwrap();
        assert_eq!(scratch.0.read(key), None, "byte {i} flipped");
        fs::write(&path, &whole[..i]).unwrap();
        assert_eq!(scratch.0.read(key), None, "{i} bytes left");
    }
    fs::write(&path, [&whole, b"x".as_slice()].concat()).unwrap();
    assert_eq!(scratch.0.read(key), None, "a byte too many");
    scratch.0.write(key, b"machine code");
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn an_entry_of_another_key_is_absent() {
    let scratch = Scratch::new("foreign");
    let (one, other) = (Key::new(["one"]), Key::new(["other"]));
    scratch.0.write(one, b"one");
    fs::rename(scratch.folder().join(one.file()), scratch.folder().join(other.file())).unwrap();
    assert_eq!(scratch.0.read(other), None);
}

#[test]
fn readers_beside_writers_see_whole_entries() {
    let scratch = Scratch::new("concurrent");
    let key = Key::new(["key"]);
    let bodies: Vec<_> = (0..4u8).map(|i| vec![i; 100_000 + usize::from(i)]).collect();
    scratch.0.write(key, &bodies[0]);
    std::thread::scope(|scope| {
        for body in &bodies {
            scope.spawn(|| (0..20).for_each(|_| scratch.0.write(key, body)));
            scope.spawn(|| (0..50).for_each(|_| assert!(bodies.contains(&scratch.0.read(key).unwrap()))));
        }
    });
    assert_eq!(scratch.files().len(), 1);
}

#[test]
fn without_a_folder_nothing_is_kept_and_nothing_fails() {
    let scratch = Scratch::new("unwritable");
    fs::write(scratch.folder(), "a file where the folder should be").unwrap();
    for cache in [Cache { folder: None }, scratch.0.clone(), Cache { folder: Some(scratch.folder().join("below")) }] {
        cache.write(Key::new(["key"]), b"body");
        assert_eq!(cache.read(Key::new(["key"])), None);
    }
    fs::remove_file(scratch.folder()).unwrap();
}

#[test]
#[cfg(unix)]
fn the_folder_is_named_or_the_users() {
    let of =
        |set: &[(&str, &str)]| folder(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into()));
    let path = |text: &str| Some(PathBuf::from(OsStr::new(text)));
    assert_eq!(of(&[("PULLBACK_CACHE", "/c"), ("HOME", "/h")]), path("/c"));
    assert_eq!(of(&[("PULLBACK_CACHE", ""), ("HOME", "/h")]), None);
    assert_eq!(of(&[("PULLBACK_CACHE", "none"), ("HOME", "/h")]), None);
    assert_eq!(of(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), path("/x/pullback"));
    assert_eq!(of(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]), path("/h/.cache/pullback"));
    assert_eq!(of(&[("HOME", "/h")]), path("/h/.cache/pullback"));
    assert_eq!(of(&[]), None);
}
