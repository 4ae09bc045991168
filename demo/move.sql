-- pgbench script: one place drifts a little, and turns.
\set n random(1, :places)
UPDATE place
   SET lat = greatest(-85, least(85, lat + 0.01 * cos(radians(heading)))),
       lon = lon + 0.01 * sin(radians(heading)),
       heading = heading + random() * 20 - 10,
       moved = clock_timestamp()
 WHERE name = (SELECT name FROM stop WHERE n = :n);
