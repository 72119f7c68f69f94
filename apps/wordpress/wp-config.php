<?php
// WordPress of {{ site.domain }}: written when it was installed, with keys of its own.

define('DB_NAME', {{ database.name|php }});
define('DB_USER', {{ database.user|php }});
define('DB_PASSWORD', {{ database.password|php }});
define('DB_HOST', 'localhost');
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
$table_prefix = 'wp_';

define('AUTH_KEY', {{ secrets[0]|php }});
define('SECURE_AUTH_KEY', {{ secrets[1]|php }});
define('LOGGED_IN_KEY', {{ secrets[2]|php }});
define('NONCE_KEY', {{ secrets[3]|php }});
define('AUTH_SALT', {{ secrets[4]|php }});
define('SECURE_AUTH_SALT', {{ secrets[5]|php }});
define('LOGGED_IN_SALT', {{ secrets[6]|php }});
define('NONCE_SALT', {{ secrets[7]|php }});

// The address is the one that the visitor came by, port included: the web server lets in only
// this site's names, and says itself whether the visitor came by HTTPS.
$undine_names = [{% for name in site.names %}{{ name|php }}{% if not loop.last %}, {% endif %}{% endfor %}];
$undine_host = $_SERVER['HTTP_HOST'] ?? '';
if (!in_array(strtolower(explode(':', $undine_host)[0]), $undine_names, true)) {
    $undine_host = $undine_names[0];
}
$undine_url = (($_SERVER['HTTPS'] ?? '') === 'on' ? 'https://' : 'http://') . $undine_host;
define('WP_HOME', $undine_url);
define('WP_SITEURL', $undine_url);

// WordPress would call its own public address to run due tasks, which servers cannot reach from
// inside. They run at the end of this file instead.
define('DISABLE_WP_CRON', true);
define('FS_METHOD', 'direct');
define('WP_AUTO_UPDATE_CORE', false);
define('WP_DEBUG', false);

if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';

// Due tasks run here after a visitor has got his answer; WordPress's own lock lets one do it. A site
// that nobody visits wakes nothing, as with WordPress everywhere.
register_shutdown_function(function () {
    if (PHP_SAPI !== 'fpm-fcgi' || !empty($_POST) || defined('DOING_CRON') || wp_installing()) {
        return;
    }
    if (function_exists('wp_get_ready_cron_jobs') && wp_get_ready_cron_jobs() !== []) {
        fastcgi_finish_request();
        include ABSPATH . 'wp-cron.php';
    }
});
