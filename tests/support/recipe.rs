//! The recipe: its five locations as printed, with the addresses of the test, and clients on its channels.

use super::postgres::Postgres;
use super::pushgate::Pushgate;
use super::websocket::Client;

/// A configuration around the recipe's locations.
pub(crate) const CONFIG: &str = r#"
daemon off;
error_log logs/error.log info;
pid logs/nginx.pid;
worker_processes 2;
events {
    worker_connections 1024;
}
http {
    access_log logs/access.log;
    upstream ngx {
        postgres_server 127.0.0.1:%%PG_PORT%% dbname=test user=test password=test;
    }
    server {
        listen 127.0.0.1:%%PORT%%;

location =/websocket {
    push_stream_subscriber websocket; # принимаем клиентов по websocket
    push_stream_channels_path $arg_id; # задаём имя websocket канала из аргумента id
    push_stream_websocket_allow_publish on; # позволяем клиентам что-нибудь публиковать в канал
    push_stream_client_subscribed_request /subscribe; # задаём что будет происходить при подключении клиента
    push_stream_client_unsubscribed_request /unsubscribe; # задаём что будет происходить при отключении клиента
    push_stream_client_publish_request /publish; # задаём что будет происходить при публикации клиентом в websocket
}

location =/subscribe {
    internal;
    postgres_pass ngx; # задаём подключение к PostgreSQL
    set_quote_json_str $channel $arg_id; # экранируем имя канала
    postgres_query "listen $channel"; # начинаем слушать асинхронные уведомления
}

location =/unsubscribe {
    internal;
    postgres_pass ngx; # задаём подключение к PostgreSQL
    set_quote_json_str $channel $arg_id; # экранируем имя канала
    postgres_query "unlisten $channel"; # прекращаем слушать асинхронные уведомления
}

location =/publish {
    internal;
    postgres_pass ngx; # задаём подключение к PostgreSQL
    postgres_query "select now()"; # выполняем команду в PostgreSQL и возвращаем результат клиенту через websocket
}

location =/publisher {
    allow 127.0.0.1/16; # разрешаем только локальные подключения
    deny all; # запрещаем все остальные подключения
    push_stream_channel_info_on_publish off; # не публикуем в информационные кананлы информацию о публикации
    push_stream_publisher; # включаем публикацию
    push_stream_channels_path $arg_id; # задаём имя websocket канала из аргумента id
}

        # Beside the recipe's, for what they don't show.
        location =/admin {
            push_stream_publisher admin;
            push_stream_channels_path $arg_id;
        }
    }
}
"#;

/// The recipe with one part of its text replaced.
#[track_caller]
pub(crate) fn with(part: &str, replacement: &str) -> String {
    assert!(CONFIG.contains(part), "the recipe's configuration has no {part:?}");
    CONFIG.replacen(part, replacement, 1)
}

#[track_caller]
pub(crate) fn start(postgres: &Postgres) -> Pushgate {
    start_with(postgres, CONFIG)
}

#[track_caller]
pub(crate) fn start_with(postgres: &Postgres, config: &str) -> Pushgate {
    Pushgate::start(config, &[("PG_PORT", &postgres.port().to_string())])
}

/// A client of the channel `id`. The id is sent as it is: nginx doesn't decode arguments.
#[track_caller]
pub(crate) fn client(server: &Pushgate, id: &str) -> Client {
    Client::connect(server.port(), &format!("/websocket?id={id}"))
}
