# Answers HTTP on the socket that systemd hands over; the site's app.pl makes the body of a page
# from its path.
use strict;
use warnings;
use IO::Handle;
use Socket;

my $home = $ENV{SITE_HOME};
my $app = do "$home/web/app.pl";
die "no app.pl: " . ($@ || $!) unless ref $app eq 'CODE';
open(my $listener, '+<&=', 3) or die "no socket: $!";
while (accept(my $visitor, $listener)) {
    my $request = <$visitor>;
    while (defined(my $line = <$visitor>)) {
        last if $line =~ /^\r?\n$/;
    }
    my $path = defined $request && $request =~ m{^[A-Z]+ (\S+)} ? $1 : '/';
    my $body = eval { $app->($path) };
    my $status = defined $body ? '200 OK' : '500 Internal Server Error';
    $body = '' unless defined $body;
    print {$visitor} "HTTP/1.0 $status\r\nContent-Type: text/plain\r\n",
        'Content-Length: ', length($body), "\r\n\r\n", $body;
    close $visitor;
}
