<?php
// Before each program of a site: sessions in files that a crash leaves whole. PHP's own handler
// empties a session's file before it writes it anew; a server that ends in between has lost it.
// This one writes a new file, to the disk, and puts it in the old one's place. A session is written
// before the answer goes out. A program that sets a handler of its own is not disturbed.
(static function (): void {
    if (session_status() !== PHP_SESSION_NONE || ini_get('session.save_handler') !== 'files') {
        return;
    }
    $handler = new class () implements SessionHandlerInterface, SessionUpdateTimestampHandlerInterface {
        private string $folder = '';

        /** @var resource|null The session's file, locked: one request at a time has a session. */
        private $file = null;

        public function open(string $path, string $name): bool
        {
            $this->folder = $path;
            return true;
        }

        public function close(): bool
        {
            if ($this->file) {
                fclose($this->file);
                $this->file = null;
            }
            return true;
        }

        public function read(string $id): string|false
        {
            $path = $this->path($id);
            if ($path === null) {
                return false;
            }
            do {
                $this->close();
                $file = @fopen($path, 'c+');
                if (!$file || !flock($file, LOCK_EX)) {
                    return false;
                }
                $this->file = $file;
                clearstatcache(true, $path);
                // Whoever had the lock may have put another file in the place of this one.
            } while (fstat($file)['ino'] !== @fileinode($path));
            return stream_get_contents($file);
        }

        public function write(string $id, string $data): bool
        {
            $path = $this->path($id);
            if ($path === null) {
                return false;
            }
            $fresh = tempnam(sys_get_temp_dir(), 'sess_');
            $file = $fresh ? fopen($fresh, 'r+') : false;
            $whole = $file && fwrite($file, $data) === strlen($data) && fsync($file);
            if ($file) {
                fclose($file);
            }
            if ($whole && rename($fresh, $path)) {
                return true;
            }
            if ($fresh) {
                @unlink($fresh);
            }
            return false;
        }

        public function destroy(string $id): bool
        {
            $path = $this->path($id);
            return $path !== null && (@unlink($path) || !file_exists($path));
        }

        public function gc(int $max_lifetime): int|false
        {
            $gone = 0;
            $before = time() - $max_lifetime;
            foreach ([$this->folder, sys_get_temp_dir()] as $folder) {
                foreach (@scandir($folder) ?: [] as $name) {
                    $path = "$folder/$name";
                    if (str_starts_with($name, 'sess_') && (int) @filemtime($path) < $before) {
                        $gone += (int) @unlink($path);
                    }
                }
            }
            return $gone;
        }

        public function validateId(string $id): bool
        {
            $path = $this->path($id);
            return $path !== null && is_file($path);
        }

        public function updateTimestamp(string $id, string $data): bool
        {
            $path = $this->path($id);
            return $path !== null && touch($path);
        }

        private function path(string $id): ?string
        {
            return preg_match('/^[A-Za-z0-9,-]{1,256}$/D', $id) ? "$this->folder/sess_$id" : null;
        }
    };
    session_set_save_handler($handler, true);
})();
