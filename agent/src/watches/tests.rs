use std::{fs, path::Path};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any change is kept to oneself.
const SILENCE: Duration = Duration::from_millis(600);

struct Scene {
    dir: tempfile::TempDir,
    wake: Wake,
    watches: Watches,
    paths: BTreeSet<String>,
}

impl Scene {
    fn new(paths: &[&str]) -> Self {
        let (dir, wake) = (tempfile::tempdir().expect("dir"), Wake::default());
        let watches = Watches::new(&Handle::current(), wake.clone(), dir.path().to_owned()).expect("inotify");
        let scene = Self { dir, wake, watches, paths: paths.iter().map(|path| (*path).to_owned()).collect() };
        paths.iter().for_each(|path| scene.write(path, "applied"));
        assert_eq!(scene.watches.set(&scene.paths, true), 0);
        scene
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("dirs");
        fs::write(path, text).expect("write");
    }

    async fn is_woken(&self) {
        tokio::time::timeout(PATIENCE, self.wake.notified()).await.expect("nobody was woken");
        assert!(self.wake.take().contains(&Applier::Files));
    }

    async fn sleeps(&self) {
        assert!(tokio::time::timeout(SILENCE, self.wake.notified()).await.is_err(), "woken by nothing of interest");
    }
}

#[tokio::test]
async fn whatever_happens_to_a_file_wakes_the_agent() {
    let scene = Scene::new(&["shop/web/a/x", "shop/web/y", "etc/z"]);
    scene.sleeps().await;
    scene.write("shop/web/a/x", "changed");
    scene.is_woken().await;
    fs::remove_file(scene.path("etc/z")).expect("remove");
    scene.is_woken().await;
    scene.write("etc/z", "back");
    scene.is_woken().await;
    fs::rename(scene.path("shop/web/y"), scene.path("shop/web/elsewhere")).expect("rename");
    scene.is_woken().await;
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    fs::set_permissions(scene.path("etc/z"), mode).expect("mode");
    scene.is_woken().await;
    fs::remove_dir_all(scene.path("shop")).expect("remove");
    scene.is_woken().await;
}

#[tokio::test]
async fn many_changes_at_once_wake_it_once() {
    let scene = Scene::new(&["shop/web/x"]);
    for n in 0..100 {
        scene.write("shop/web/x", &n.to_string());
    }
    scene.is_woken().await;
    scene.sleeps().await;
}

#[tokio::test]
async fn what_lies_beside_owned_files_is_of_no_interest() {
    let scene = Scene::new(&["shop/web/x"]);
    scene.write("shop/web/app.log", "line");
    scene.write("shop/web/data/file", "data");
    scene.write("shop/other/x", "other");
    scene.write("top", "other");
    drop(fs::File::open(scene.path("shop/web/x")).expect("read"));
    scene.sleeps().await;
    scene.write("shop/web/x", "changed");
    scene.is_woken().await;
}

#[tokio::test]
async fn the_agents_own_switches_wake_nobody() {
    let mut scene = Scene::new(&["shop/web/x"]);
    let exchange = |scene: &Scene| {
        scene.write(".titan/new/x", "next");
        let (new, home) = (scene.path(".titan/new"), scene.path("shop/web"));
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, &home, flags).expect("exchange");
        fs::remove_dir_all(new).expect("remove");
    };
    exchange(&scene);
    scene.paths.insert("shop/web/new".to_owned());
    scene.watches.set(&scene.paths, true);
    scene.sleeps().await;
    scene.write("shop/web/x", "changed");
    scene.is_woken().await;
    scene.write("shop/web/new", "came");
    scene.is_woken().await;
    // Noticed already, told not yet.
    exchange(&scene);
    tokio::time::sleep(GATHER.0 * 4).await;
    scene.watches.set(&scene.paths, true);
    scene.sleeps().await;
    // Somebody else's change, and a look at everything that changed nothing.
    scene.write("shop/web/x", "changed");
    scene.watches.set(&scene.paths, false);
    scene.is_woken().await;
    scene.watches.set(&BTreeSet::new(), true);
    scene.write("shop/web/x", "nobody's any more");
    scene.sleeps().await;
}

#[tokio::test]
async fn what_comes_with_a_directory_that_was_missing_is_noticed() {
    let scene = Scene::new(&["shop/web/x"]);
    fs::remove_dir_all(scene.path("shop")).expect("remove");
    scene.is_woken().await;
    assert_eq!(scene.watches.set(&scene.paths, false), 0, "what is missing is not counted");
    scene.write("shop/web/x", "back");
    scene.is_woken().await;
    std::os::unix::fs::symlink("/proc", scene.path("link")).expect("link");
    let through = BTreeSet::from(["link/self/status".to_owned()]);
    assert_eq!(scene.watches.set(&through, true), 0, "links are not followed");
}

#[tokio::test]
async fn no_more_directories_are_watched_than_allowed() {
    let wake = Wake::default();
    let dir = tempfile::tempdir().expect("dir");
    let watches = Watches::new(&Handle::current(), wake, dir.path().to_owned()).expect("inotify");
    let path = |n: usize| format!("{n}/x");
    for n in 0..WATCHED + 10 {
        fs::create_dir(dir.path().join(n.to_string())).expect("dir");
    }
    let unwatched = watches.set(&(0..WATCHED + 10).map(path).collect(), false);
    assert!(unwatched >= 11, "{unwatched}");
    assert!(watches.shared.state().names.len() <= WATCHED);
    assert_eq!(watches.set(&(0..10).map(path).collect(), false), 0);
    let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join({
        use std::os::fd::AsRawFd as _;
        watches.shared.fd.get_ref().as_raw_fd().to_string()
    }));
    assert_eq!(info.expect("fdinfo").matches("inotify wd").count(), 11, "the others are given back to the kernel");
}

#[test]
fn every_directory_on_the_way_is_watched_for_the_next_name() {
    let paths = ["a/b/x", "a/b/y", "a/c", "d"].map(str::to_owned).into();
    let shown: Vec<String> = directories(&paths)
        .into_iter()
        .map(|(dir, names)| {
            let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
            format!("{dir}: {}", names.join(" "))
        })
        .collect();
    assert_eq!(shown, [": a d", "a: b c", "a/b: x y"]);
}
