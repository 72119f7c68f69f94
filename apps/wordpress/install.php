<?php
// Installs WordPress without a browser. Reads the answers on standard input; safe to repeat.

$input = json_decode(stream_get_contents(STDIN), true, 16, JSON_THROW_ON_ERROR);
$answers = $input['answers'];
$_SERVER['HTTP_HOST'] = $input['site']['domain'];
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['REQUEST_URI'] = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
define('WP_INSTALLING', true);

// A new server sends no mail, and nothing may wait for one.
function wp_mail()
{
    return true;
}

function wp_new_blog_notification()
{
}

require $argv[1] . '/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';

if (is_blog_installed()) {
    echo "already installed\n";
    exit(0);
}
$result = wp_install(
    $answers['title'],
    $answers['user'],
    $answers['email'],
    true,
    '',
    wp_slash($answers['password'])
);
if (empty($result['user_id'])) {
    fwrite(STDERR, "WordPress did not make the administrator\n");
    exit(1);
}
// The address that links in texts are made with; the port may change, the path does not.
update_option('permalink_structure', '/%postname%/');
flush_rewrite_rules(false);
echo "installed\n";
