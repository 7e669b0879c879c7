-- The tables as migrations 0001 to 0005 leave them, for a new PostgreSQL database: two of those are in SQLite's own SQL.
-- Later migrations run on both. Text that rows are sorted by is sorted by its characters' numbers, as SQLite does.
CREATE TABLE conversations (
    conversation_id text PRIMARY KEY,
    revision integer NOT NULL,
    version integer NOT NULL
);
CREATE TABLE segments (
    conversation_id text NOT NULL REFERENCES conversations (conversation_id) ON DELETE CASCADE,
    segment_id text COLLATE "C" NOT NULL,
    backend_revision integer NOT NULL,
    removed boolean NOT NULL,
    text text NOT NULL,
    start_s double precision NOT NULL,
    end_s double precision NOT NULL,
    speaker text,
    original_speaker text,
    written_version integer,
    undone boolean NOT NULL,
    is_user boolean NOT NULL,
    person_id text,
    label_source text,
    words json,
    field_revisions json,
    pieces json,
    corrected boolean NOT NULL DEFAULT false,
    corrected_person text,
    matched_person text,
    PRIMARY KEY (conversation_id, segment_id)
);
CREATE TABLE writes (
    conversation_id text NOT NULL REFERENCES conversations (conversation_id) ON DELETE CASCADE,
    version integer NOT NULL,
    kind text NOT NULL,
    write_key text NOT NULL,
    written_at_s double precision NOT NULL,
    made_by text,
    undoes integer,
    corrections json,
    PRIMARY KEY (conversation_id, version)
);
CREATE TABLE changes (
    conversation_id text NOT NULL,
    version integer NOT NULL,
    segment_id text COLLATE "C" NOT NULL,
    before text,
    after text,
    pieces_before json,
    pieces_after json,
    origin_before json,
    origin_after json,
    PRIMARY KEY (conversation_id, version, segment_id),
    FOREIGN KEY (conversation_id, version) REFERENCES writes (conversation_id, version) ON DELETE CASCADE
);
CREATE TABLE alembic_version (
    version_num varchar(32) PRIMARY KEY
);
INSERT INTO alembic_version (version_num) VALUES ('0005');
