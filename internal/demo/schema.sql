CREATE TABLE customers (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    city text NOT NULL
);

CREATE TABLE orders (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers,
    item     text NOT NULL,
    total    numeric(10, 2) NOT NULL,
    status   text NOT NULL DEFAULT 'placed'
);
-- With the whole old row in the log, rules can ask what has changed.
ALTER TABLE orders REPLICA IDENTITY FULL;

INSERT INTO customers (name, city) VALUES
    ('Ada', 'London'), ('Grace', 'New York'), ('Edsger', 'Rotterdam'), ('Barbara', 'Los Angeles'), ('Tony', 'Oxford');
