-- name: called_functions
-- Every overload of each name called; an unqualified name means pg_catalog, as in the session
-- that keeps the view.
SELECT called.name, called.schema, procedure.provolatile::text,
       procedure.prokind::text, procedure.proretset
  FROM unnest(%(schemas)s::text[], %(functions)s::text[], %(names)s::text[])
       AS called (schema, function, name)
  LEFT JOIN pg_catalog.pg_namespace AS namespace ON namespace.nspname = called.schema
  LEFT JOIN pg_catalog.pg_proc AS procedure
    ON procedure.pronamespace = namespace.oid AND procedure.proname = called.function
