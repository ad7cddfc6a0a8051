//! What the journal looks like on disk.

use super::*;

#[test]
fn a_journal_can_be_turned_back_where_it_is() {
    let name = uuid::Uuid::nil().to_string();
    let ledger = Some(Ledger::default());
    let journal =
        Journal { name, phase: Phase::Switching, root: "/".into(), stages: BTreeSet::new(), steps: Vec::new(), ledger };
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join(FILE);
    disk::write_json(&file, &journal).expect("write");
    disk::overwrite(&file, FORWARD, BACKWARD).expect("overwrite");
    let found: Journal = disk::read_json(&file).expect("read").expect("there");
    assert_eq!((found.phase, found.ledger), (Phase::Undoing, journal.ledger));
}
