<?php
// A spare server runs this before it is needed: what programs use most, so that it is awake.
declare(strict_types=1);
session_start();
$_SESSION['visits'] = (int) ($_SESSION['visits'] ?? 0) + 1;
session_write_close();

abstract class Shape
{
    public function __construct(protected readonly string $name, protected array $parts = [])
    {
    }

    abstract public function area(): float;

    public function __toString(): string
    {
        return sprintf('%s has %0.2f', ucfirst($this->name), $this->area());
    }

    public static function compare(self $one, self $other): int
    {
        return $one->area() <=> $other->area();
    }
}

final class Box extends Shape
{
    public function area(): float
    {
        return (float) array_product($this->parts);
    }
}

final class Disc extends Shape
{
    public function area(): float
    {
        return M_PI * $this->parts[0] ** 2;
    }
}

function texts(): array
{
    $text = str_repeat("The quick brown fox, number 7, jumps over the “lazy” dog.\n", 40);
    $words = preg_split('/[^\p{L}\d]+/u', $text, -1, PREG_SPLIT_NO_EMPTY);
    $count = array_count_values(array_map('mb_strtolower', $words));
    arsort($count);
    $linked = preg_replace_callback('/\b(fox|dog)\b/i', fn (array $m): string => "<a>{$m[1]}</a>", $text);
    return [
        htmlspecialchars(strtr($linked, ['<a>' => '[', '</a>' => ']'])),
        implode(' ', array_slice(array_keys($count), 0, 5)),
        wordwrap(trim(strip_tags($linked)), 60),
        nl2br(rawurlencode(number_format(1234567.891, 2))),
    ];
}

function values(): array
{
    $rows = [];
    foreach (range(1, 60) as $number) {
        $rows[] = ['id' => $number, 'name' => md5((string) $number), 'tags' => ['a', 'b', null], 'on' => $number % 2 === 0];
    }
    usort($rows, fn (array $a, array $b): int => strcmp($a['name'], $b['name']));
    $even = array_filter($rows, fn (array $row): bool => $row['on']);
    $json = json_encode(array_column($even, 'name', 'id'), JSON_PRETTY_PRINT | JSON_THROW_ON_ERROR);
    return [json_decode($json, true), unserialize(serialize($rows)), hash('sha256', $json), bin2hex(random_bytes(8))];
}

function files(): void
{
    $path = tempnam(sys_get_temp_dir(), 'rehearsal');
    file_put_contents($path, str_repeat("line\n", 1000), LOCK_EX);
    foreach (new SplFileObject($path) as $line) {
        if (strlen($line) === 0) {
            break;
        }
    }
    clearstatcache();
    unlink($path);
}

function rows(string $name): void
{
    // A program without a database is no less awake.
    if ($name === '' || !extension_loaded('mysqli')) {
        return;
    }
    $database = mysqli_init();
    $database->real_connect('localhost', $name, $name, $name);
    $database->set_charset('utf8mb4');
    $database->query('CREATE TABLE IF NOT EXISTS options (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(191) UNIQUE, value LONGTEXT, autoload VARCHAR(20))');
    $add = $database->prepare('INSERT INTO options (name, value, autoload) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)');
    foreach (range(1, 20) as $number) {
        [$key, $value, $load] = ["option_$number", str_repeat('x', 50 * $number), 'yes'];
        $add->bind_param('sss', $key, $value, $load);
        $add->execute();
    }
    $found = $database->query("SELECT SQL_CALC_FOUND_ROWS o.name, o.value FROM options o LEFT JOIN options p ON p.id = o.id + 1 WHERE o.autoload IN ('yes', 'on') GROUP BY o.id ORDER BY o.name DESC LIMIT 0, 10");
    while ($row = $found->fetch_object()) {
        strlen($row->value);
    }
    $database->close();
}

header('Content-Type: text/html; charset=utf-8');
ob_start();
[$date, $shapes] = [new DateTimeImmutable('now', new DateTimeZone('UTC')), [new Box('box', [2, 3]), new Disc('disc', [1])]];
usort($shapes, Shape::compare(...));
try {
    echo implode("\n", [...texts(), ...array_map('strval', $shapes), $date->modify('+1 day')->format(DATE_ATOM)]);
    values();
    files();
    rows((string) getenv('REHEARSAL'));
    throw new RuntimeException('as planned');
} catch (RuntimeException $planned) {
    echo get_class($planned), ' ', $planned->getLine(), "\n";
}
echo strlen((string) ob_get_clean()), "\n";
