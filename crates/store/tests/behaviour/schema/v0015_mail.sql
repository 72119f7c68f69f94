-- As a program of this step wrote it: a mail that waits.
INSERT INTO mails (id, version, created_at, updated_at, address, about, tries, not_before) VALUES (uuid:018bcfe5-6800-7101-8101-010101010301, 1, 1700000000000, 1700000000000, 'ann@example.com', 'reset', 1, 1700000000000);
UPDATE sites SET gone_at = 1700086400000, state_before = 'active';
