<?php
// Written to and read by trials: a session counter, numbered files, a log, and a page that tells
// the newest file. Plain PHP, as customers write it: nothing is flushed by hand but the log, as
// databases do.
declare(strict_types=1);
header('Content-Type: text/plain');
header('Cache-Control: no-store');
$folder = session_save_path();
$newest = $folder . '/trial-newest';
$do = $_GET['do'] ?? '';
$address = 'addr=' . ($_SERVER['SERVER_ADDR'] ?? '');
if ($do === 'session' && $_SERVER['REQUEST_METHOD'] === 'POST') {
    session_start();
    $_SESSION['number'] = (int) ($_SESSION['number'] ?? 0) + 1;
    $number = $_SESSION['number'];
    session_write_close();
    echo "written number=$number $address\n";
} elseif ($do === 'file' && $_SERVER['REQUEST_METHOD'] === 'POST') {
    $number = (int) ($_GET['number'] ?? 0);
    $whole = file_put_contents("$folder/trial-$number", str_repeat("$number\n", 100));
    $told = (int) @file_get_contents($newest);
    if ($number > $told) {
        file_put_contents("$newest.new", (string) $number);
        rename("$newest.new", $newest);
    }
    echo $whole ? "written number=$number $address\n" : "not written\n";
} elseif ($do === 'line' && $_SERVER['REQUEST_METHOD'] === 'POST') {
    $number = (int) ($_GET['number'] ?? 0);
    $log = fopen("$folder/trial-log", 'a');
    $is_there = $log && fwrite($log, "$number\n") && fsync($log);
    echo $is_there ? "written number=$number $address\n" : "not written\n";
} elseif ($do === 'found') {
    session_start();
    echo 'session=' . (int) ($_SESSION['number'] ?? 0) . ' files=';
    $numbers = [];
    foreach (glob("$folder/trial-*") as $path) {
        $number = substr(basename($path), 6);
        if (ctype_digit($number) && file_get_contents($path) === str_repeat("$number\n", 100)) {
            $numbers[] = $number;
        }
    }
    echo implode(',', $numbers) . ' lines=';
    $lines = (string) @file_get_contents("$folder/trial-log");
    echo implode(',', explode("\n", trim($lines))) . " $address\n";
} else {
    $told = (int) @file_get_contents($newest);
    echo "Undine trial newest=$told $address\n";
}
