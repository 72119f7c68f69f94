-- As a program of this step wrote it: the copies of the server of the first step were compared.
UPDATE servers SET scrubbed_at = 1700000000009;
