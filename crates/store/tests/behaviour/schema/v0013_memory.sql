-- As a program of this step wrote it: the second life of the store began on it.
UPDATE life SET term = 12, place = 'sqlite';
INSERT INTO doubts (id, version, created_at, updated_at, epoch, stood, blocked) SELECT id, 1, 5, 5, epoch, version, 'node-2 has seen epoch 9' FROM servers WHERE TRUE ON CONFLICT (id) DO NOTHING;
