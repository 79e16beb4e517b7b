-- +goose Up
CREATE TABLE tributary.checkpoints (
    source       text PRIMARY KEY,
    version      bigint      NOT NULL, -- counts changes of the row: each names the one that it replaces
    epoch        bigint      NOT NULL,
    incarnation  bigint      NOT NULL,
    system_id    text        NOT NULL,
    timeline     integer     NOT NULL,
    slot         text        NOT NULL,
    phase        text        NOT NULL,
    commit_lsn   pg_lsn      NOT NULL,
    change_index bigint      NOT NULL,
    end_lsn      pg_lsn      NOT NULL,
    leader       text        NOT NULL,
    saved_at     timestamptz NOT NULL
) WITH (fillfactor = 20); -- few rows, changed often: what replaces a row finds room beside it

CREATE TABLE tributary.checkpoint_history (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source   text        NOT NULL,
    saved_at timestamptz NOT NULL,
    who      text        NOT NULL,
    why      text        NOT NULL,
    earlier  jsonb, -- null for the first
    later    jsonb       NOT NULL
);

CREATE INDEX checkpoint_history_of_source ON tributary.checkpoint_history (source, id);

-- +goose Down
DROP TABLE tributary.checkpoint_history;
DROP TABLE tributary.checkpoints;
