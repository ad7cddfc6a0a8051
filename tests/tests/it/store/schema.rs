//! The two schemas say the same.

use super::stores;

/// Returns a line for each column, index and constraint of each table, in the words of both engines.
pub(super) fn description(sqlite: bool) -> [&'static str; 3] {
    if sqlite {
        [
            "SELECT t.name || '.' || c.name || ' ' || lower(c.type) || CASE c.\"notnull\" WHEN 1 THEN ' not null' ELSE '' END \
             || coalesce(' default ' || c.dflt_value, '') || ' #' || c.cid \
             FROM sqlite_master t JOIN pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite%' ORDER BY 1",
            "SELECT t.name || CASE WHEN i.\"unique\" = 1 THEN ' unique' ELSE ' plain' END \
             || CASE WHEN i.origin = 'pk' THEN ' primary' ELSE '' END || CASE WHEN i.partial = 1 THEN ' partial' ELSE '' END \
             || ' (' || (SELECT group_concat(name, ', ') FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)) || ')' \
             || CASE WHEN i.origin = 'c' THEN ' as ' || i.name ELSE '' END \
             FROM sqlite_master t JOIN pragma_index_list(t.name) i \
             WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY 1",
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY 1",
        ]
    } else {
        [
            "SELECT table_name || '.' || column_name || ' ' || CASE data_type WHEN 'bytea' THEN 'blob' ELSE data_type END \
             || CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END || coalesce(' default ' || column_default, '') \
             || ' #' || (ordinal_position - 1) FROM information_schema.columns \
             WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%' ORDER BY 1",
            "SELECT t.relname || CASE WHEN x.indisunique THEN ' unique' ELSE ' plain' END \
             || CASE WHEN x.indisprimary THEN ' primary' ELSE '' END || CASE WHEN x.indpred IS NOT NULL THEN ' partial' ELSE '' END \
             || ' (' || (SELECT string_agg(a.attname, ', ' ORDER BY k.position) \
             FROM unnest(x.indkey::smallint[]) WITH ORDINALITY AS k(number, position) \
             JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number) || ')' \
             || CASE WHEN EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = x.indexrelid) THEN '' \
             ELSE ' as ' || i.relname END \
             FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid \
             JOIN pg_namespace n ON n.oid = t.relnamespace WHERE n.nspname = 'public' AND t.relname NOT LIKE '\\_%' ORDER BY 1",
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' \
             AND table_name NOT LIKE '\\_%' ORDER BY 1",
        ]
    }
}

/// S3-26. Names, types, nullability, defaults, order, keys and indexes of every table.
#[tokio::test]
async fn both_migrations_make_the_same_schema_column_by_column() {
    let mut described = Vec::new();
    for (database, _store) in stores().await {
        let mut lines = Vec::new();
        for query in description(database.is_sqlite()) {
            let mut found = database.texts(query).await.expect("a description");
            assert!(found.len() > 10, "{}: {found:?}", database.engine);
            found.sort();
            lines.push(found);
        }
        described.push((database.engine, lines));
    }
    let (_, sqlite) = &described[0];
    assert!(sqlite[0].contains(&"resources.deleted_revision bigint #7".to_owned()), "{:#?}", sqlite[0]);
    assert!(sqlite[1].contains(&"changes unique primary (revision, ordinal)".to_owned()), "{:#?}", sqlite[1]);
    for (engine, other) in &described[1..] {
        for (ours, theirs) in sqlite.iter().zip(other) {
            let missing: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).collect();
            let more: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).collect();
            assert!(missing.is_empty() && more.is_empty(), "{engine} has not {missing:#?}, but has {more:#?}");
        }
    }
}

/// S3-26.
#[tokio::test]
async fn opening_a_database_again_changes_nothing_in_it() {
    for (database, store) in stores().await {
        let query = description(database.is_sqlite())[0];
        let before = database.texts(query).await.expect("a description");
        drop(store);
        titan_control_plane::store::Store::open(&database.url).await.expect("open again");
        assert_eq!(database.texts(query).await.expect("a description"), before);
    }
}

#[tokio::test]
async fn words_outside_the_known_ones_are_refused_by_both() {
    for (database, _store) in stores().await {
        for bad in [
            "INSERT INTO clock (id, revision) VALUES (2, 0)",
            "INSERT INTO tasks (id, kind, state, subject, payload, created_at, updated_at) VALUES ('i', 'k', 'lost', 's', '{}', 1, 1)",
            "INSERT INTO tokens (id, kind, name, hash, created_at) VALUES ('i', 'root', 'n', '', 1)",
            "INSERT INTO assignments (deployment, host, description, revision) VALUES (NULL, NULL, 1, 1)",
            "INSERT INTO bookmarks (name, revision) VALUES (NULL, 1)",
        ] {
            assert!(database.execute(bad).await.is_err(), "{}: {bad}", database.engine);
        }
    }
}
