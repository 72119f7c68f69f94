<?php
// A session counter: proof that a visitor's session lives as long as the visitor comes back.
declare(strict_types=1);
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$visits = $_SESSION['visits'];
header('Cache-Control: no-store');
?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Undine session counter</title>
<h1>Undine session counter</h1>
<p>You have been here <strong id="visits"><?= $visits ?></strong> time<?= $visits === 1 ? '' : 's' ?>.</p>
<p>Served by <?= htmlspecialchars(gethostname() ?: 'a server') ?>, PHP <?= PHP_VERSION ?>.</p>
</html>
