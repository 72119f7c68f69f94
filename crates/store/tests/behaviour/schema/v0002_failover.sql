-- Rows as the second schema holds them. Never edited: later steps must carry them forward.
INSERT INTO removals (id, version, created_at, updated_at, server, node, epoch, reason) VALUES (uuid:018bcfe5-6800-7101-8101-010101010111, 1, 1700000000000, 1700000000000, uuid:018bcfe5-6800-7101-8101-0101010101ff, uuid:018bcfe5-6800-7101-8101-010101010101, 2, 'the server was deleted');
