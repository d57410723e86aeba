use crate::world::*;

#[tokio::test]
async fn alive_ready_and_counted() {
    let world = World::new().await;
    world.device(&["main"]).await;
    assert_eq!(world.get("", "/healthz").await.bytes, b"ok\n");
    assert_eq!(world.get("", "/readyz").await.bytes, b"ready\n");
    let metrics = world.get("", "/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    let text = String::from_utf8(metrics.bytes).unwrap();
    assert!(text.contains("modem_upgrader_devices{state=\"accepted\"} 1\n"), "{text}");
    assert!(text.contains("modem_upgrader_devices_connected 0\n"), "{text}");

    world.device(&["main"]).await;
    let again = String::from_utf8(world.get("", "/metrics").await.bytes).unwrap();
    assert_eq!(again, text, "not counted anew for everybody who asks");
    world.app.store.stop();
}
