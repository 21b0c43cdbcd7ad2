-- Tables of incremental SQL views. {braces} are composed by psycopg.sql.

-- name: create_table
-- No index but the key's, and room on each page: updates of the aggregates stay on their page.
CREATE TABLE {table} (
    {columns},
    UNIQUE NULLS NOT DISTINCT ({keys})
) WITH (fillfactor = 70)

-- name: key_constraint
SELECT conname FROM pg_constraint WHERE conrelid = {table}::regclass AND contype = 'u'

-- name: drop_key
ALTER TABLE {table} DROP CONSTRAINT {constraint}

-- name: add_key
ALTER TABLE {table} ADD CONSTRAINT {constraint} UNIQUE NULLS NOT DISTINCT ({keys})

-- name: index_bucket
CREATE INDEX ON {table} ({bucket})

-- name: enable_row_security
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY

-- name: force_row_security
ALTER TABLE {table} FORCE ROW LEVEL SECURITY

-- name: tenant_policy
CREATE POLICY tenant_reads ON {table} FOR SELECT TO headwater_app
    USING (tenant = (SELECT current_setting('headwater.tenant', true)))

-- name: relay_policy
CREATE POLICY relay_keeps ON {table} FOR ALL TO headwater_relay
    USING (true) WITH CHECK (true)

-- name: operator_policy
CREATE POLICY operator_reads ON {table} FOR SELECT TO headwater_operator
    USING (true)

-- name: grant_reading
GRANT SELECT ON {relation} TO headwater_app, headwater_operator

-- name: grant_keeping
GRANT ALL ON {relation} TO headwater_relay

-- name: create_view
CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS
SELECT {outputs} FROM {table}

-- name: drop_view
DROP VIEW IF EXISTS {view}

-- name: truncate
TRUNCATE {tables}

-- name: drop_table
DROP TABLE IF EXISTS {table}
