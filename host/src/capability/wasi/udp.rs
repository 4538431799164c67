//! `wasi:sockets/udp` for plugins: wasmtime's own sockets, counted, each address and each datagram asked about.
//!
//! What is allowed is decided in `sockets::address_is_allowed`, which wasmtime calls for every bind and datagram; so a change of
//! policy holds from the next datagram on. This file counts sockets and otherwise hands on.

use std::net::SocketAddr;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    self, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket;
use wasmtime_wasi::p2::{DynPollable, SocketResult};

use super::WasiView;
use crate::grant::Action;

impl udp_create_socket::Host for WasiView<'_> {
    async fn create_udp_socket(
        &mut self,
        family: IpAddressFamily,
    ) -> SocketResult<Resource<UdpSocket>> {
        let slot = self
            .parts
            .access
            .take_socket()
            .ok_or(ErrorCode::NewSocketLimit)?;
        let socket =
            udp_create_socket::Host::create_udp_socket(&mut self.stock_sockets(), family).await?;
        self.parts.udp.insert(socket.rep(), slot);
        Ok(socket)
    }
}

impl udp::Host for WasiView<'_> {}

impl HostUdpSocket for WasiView<'_> {
    async fn start_bind(
        &mut self,
        socket: Resource<UdpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.stock_sockets()
            .start_bind(socket, network, local)
            .await
    }

    fn finish_bind(&mut self, socket: Resource<UdpSocket>) -> SocketResult<()> {
        self.stock_sockets().finish_bind(socket)
    }

    async fn stream(
        &mut self,
        socket: Resource<UdpSocket>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(
        Resource<IncomingDatagramStream>,
        Resource<OutgoingDatagramStream>,
    )> {
        if let Some(remote) = remote {
            // Asked here as well, because wasmtime refuses odd spellings of addresses before it asks: the audit shall know.
            let addr = SocketAddr::from(remote);
            if !self
                .parts
                .access
                .guard()
                .decide(&Action::UdpSend { addr })
                .is_allowed()
            {
                return Err(ErrorCode::AccessDenied.into());
            }
        }
        self.stock_sockets().stream(socket, remote).await
    }

    fn local_address(&mut self, socket: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        HostUdpSocket::local_address(&mut self.stock_sockets(), socket)
    }

    fn remote_address(&mut self, socket: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        HostUdpSocket::remote_address(&mut self.stock_sockets(), socket)
    }

    fn address_family(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        HostUdpSocket::address_family(&mut self.stock_sockets(), socket)
    }

    fn unicast_hop_limit(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u8> {
        self.stock_sockets().unicast_hop_limit(socket)
    }

    fn set_unicast_hop_limit(
        &mut self,
        socket: Resource<UdpSocket>,
        value: u8,
    ) -> SocketResult<()> {
        self.stock_sockets().set_unicast_hop_limit(socket, value)
    }

    fn receive_buffer_size(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u64> {
        HostUdpSocket::receive_buffer_size(&mut self.stock_sockets(), socket)
    }

    fn set_receive_buffer_size(
        &mut self,
        socket: Resource<UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        HostUdpSocket::set_receive_buffer_size(&mut self.stock_sockets(), socket, value)
    }

    fn send_buffer_size(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u64> {
        HostUdpSocket::send_buffer_size(&mut self.stock_sockets(), socket)
    }

    fn set_send_buffer_size(
        &mut self,
        socket: Resource<UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        HostUdpSocket::set_send_buffer_size(&mut self.stock_sockets(), socket, value)
    }

    fn subscribe(
        &mut self,
        socket: Resource<UdpSocket>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        HostUdpSocket::subscribe(&mut self.stock_sockets(), socket)
    }

    fn drop(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<()> {
        let number = socket.rep();
        HostUdpSocket::drop(&mut self.stock_sockets(), socket)?;
        self.parts.udp.remove(&number);
        Ok(())
    }
}

impl HostIncomingDatagramStream for WasiView<'_> {
    fn receive(
        &mut self,
        stream: Resource<IncomingDatagramStream>,
        most: u64,
    ) -> SocketResult<Vec<IncomingDatagram>> {
        self.stock_sockets().receive(stream, most)
    }

    fn subscribe(
        &mut self,
        stream: Resource<IncomingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        HostIncomingDatagramStream::subscribe(&mut self.stock_sockets(), stream)
    }

    fn drop(&mut self, stream: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        HostIncomingDatagramStream::drop(&mut self.stock_sockets(), stream)
    }
}

impl HostOutgoingDatagramStream for WasiView<'_> {
    fn check_send(&mut self, stream: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        self.stock_sockets().check_send(stream)
    }

    fn send(
        &mut self,
        stream: Resource<OutgoingDatagramStream>,
        datagrams: Vec<OutgoingDatagram>,
    ) -> SocketResult<u64> {
        self.stock_sockets().send(stream, datagrams)
    }

    fn subscribe(
        &mut self,
        stream: Resource<OutgoingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        HostOutgoingDatagramStream::subscribe(&mut self.stock_sockets(), stream)
    }

    async fn drop(&mut self, stream: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        HostOutgoingDatagramStream::drop(&mut self.stock_sockets(), stream).await
    }
}
