FROM caddy:2.11.7-alpine
# The program's file asks for the right to open ports below 1024, so it does not start where no right may be had. A copy asks for none.
# A new volume takes the owner of the folder: /tls is for certificates.
RUN cp /usr/bin/caddy /usr/local/bin/caddy \
    && rm /usr/bin/caddy \
    && install -d -o 10003 -g 10003 /tls
USER 10003:10003
